//! On which lines of main.cf or master.cf the entries of a table stand that is written out there (pure).

/// The lines of one setting: those that begin it and go on with it, with their numbers.
type Lines<'t> = Vec<(usize, &'t str)>;

/// What is set, as postconf(5) and master(5) read it: a line that begins with white space goes on with the one before, and empty lines
/// and comments are none.
fn settings(text: &str) -> Vec<Lines<'_>> {
    let mut all: Vec<Lines<'_>> = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(number, line)| (number + 1, line)) {
        match (line.trim_start().chars().next(), all.last_mut()) {
            (None | Some('#'), _) => {}
            (Some(_), Some(last)) if line.starts_with([' ', '\t']) => last.push((number, line)),
            (Some(_), _) => all.push(vec![(number, line)]),
        }
    }
    all
}

/// The lines on which a parameter is set: in main.cf, the last time; of a service, in master.cf. Nothing, where it is not.
pub(super) fn lines_of<'t>(text: &'t str, service: Option<&str>, parameter: &str) -> Lines<'t> {
    let is_it = |lines: &Lines<'_>| match service {
        None => lines[0].1.split('=').next().is_some_and(|name| name.trim() == parameter),
        Some(service) => {
            let mut words = lines[0].1.split_ascii_whitespace();
            words.next() == Some(service) && words.next().is_some_and(|kind| matches!(kind, "unix" | "fifo"))
        }
    };
    let mut lines = settings(text).into_iter().rfind(is_it).unwrap_or_default();
    if service.is_some() {
        // The options before it are no part of it.
        let first = lines.iter().position(|(_, line)| line.contains(parameter)).unwrap_or(lines.len());
        lines.drain(..first);
    }
    lines
}

/// The parameters of main.cf in whose lines such a character stands, each with the number of the first of these lines.
pub(super) fn parameters_with(text: &str, sought: char) -> impl Iterator<Item = (&str, usize)> {
    settings(text).into_iter().filter_map(move |lines| {
        let (number, _) = lines.iter().find(|(_, line)| line.contains(sought))?;
        Some((lines[0].1.split('=').next()?.trim(), *number))
    })
}

/// For each key of a table that is written out in these lines, in its order: the line that it stands on; the first one, where it is
/// not found, as it may be what a parameter stands for. 0: there are no lines.
pub(super) fn lines_of_keys(lines: &[(usize, &str)], keys: impl Iterator<Item = String>) -> Vec<usize> {
    let first = lines.first().map_or(0, |(number, _)| *number);
    // Where the last one was found.
    let mut from = (0, 0);
    keys.map(|key| {
        let found = lines.iter().enumerate().skip(from.0).find_map(|(at, (number, line))| {
            let start = if at == from.0 { from.1 } else { 0 };
            let is_key = |place: &usize| {
                let after = line[start + place + key.len()..].trim_start();
                after.is_empty() || after.starts_with('=')
            };
            let place = line.get(start..)?.match_indices(&key).map(|(place, _)| place).find(is_key)?;
            Some(((at, start + place + key.len()), *number))
        });
        let Some((place, number)) = found.filter(|_| !key.is_empty()) else { return first };
        from = place;
        number
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN_CF: &str = "\
smtp_sasl_password_maps = hash:/old
# smtp_sasl_password_maps = hash:/comment
smtp_sasl_password_maps_of_mine = x
smtp_sasl_password_maps =
    hash:/t,

# between
    inline:{ {[a]:587 = u:p}, {[a] = x} }
  inline:{ {b = $u:$p},
           {[a]:587
             = u:p} }
relayhost = [a]:587
";

    #[test]
    fn a_parameter_goes_on_over_lines_and_is_set_the_last_time() {
        let lines = lines_of(MAIN_CF, None, "smtp_sasl_password_maps");
        assert_eq!(lines.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [4, 5, 8, 9, 10, 11]);
        let of = |keys: &[&str]| lines_of_keys(&lines, keys.iter().map(|key| (*key).to_owned()));
        assert_eq!(of(&["[a]:587", "[a]"]), [8, 8]);
        // As it comes: the next one of the same key is behind it.
        assert_eq!(of(&["[a]:587", "b", "[a]:587"]), [8, 9, 10]);
        // What is not written so stands where the parameter is set.
        assert_eq!(of(&["*", "b"]), [4, 9]);
        assert_eq!(lines_of_keys(&lines_of("", None, "x"), ["a".to_owned()].into_iter()), [0]);
    }

    #[test]
    fn an_option_of_a_service() {
        let master_cf = "\
smtp unix - - n - - smtp
bulk inet - - n - - smtpd
  -o smtp_sasl_password_maps=inline:{{a=u:p}}
bulk unix - - n - - smtp
  -o a=b
  -o { smtp_sasl_password_maps = inline:{{a=u:p}} }
";
        let lines = lines_of(master_cf, Some("bulk"), "smtp_sasl_password_maps");
        assert_eq!(lines_of_keys(&lines, ["a".to_owned()].into_iter()), [6]);
        assert_eq!(lines_of(master_cf, Some("smtp"), "smtp_sasl_password_maps"), []);
    }
}
