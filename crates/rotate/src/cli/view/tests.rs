use super::*;

#[test]
fn lengths_of_time_are_their_two_largest_units() {
    for (seconds, told) in [
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (61, "1m 1s"),
        (3600, "1h"),
        (3660, "1h 1m"),
        (3601, "1h"),
        (90_000, "1d 1h"),
        (-5, "0s"),
    ] {
        assert_eq!(span(SignedDuration::from_secs(seconds)), told, "{seconds}");
    }
}

#[test]
fn paragraphs_fit_and_commands_stay_whole() {
    let mut out = String::new();
    let command = "`relaykey-rotate hosts waive mx1.example.com --reason \"down for repair\"`";
    put(
        &mut out,
        "  to do: ",
        "    ",
        &format!("start relaykey on mx1.example.com; if it will not come back, {command}; if it is gone, `x`"),
    );
    assert!(out.contains(command), "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= WIDTH || line.contains(command)), "{out}");
    assert!(out.contains(&format!("{command};")), "a semicolon stays where it belongs: {out}");
}
