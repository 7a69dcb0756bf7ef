//! Weekly hours, in which something may happen by itself.
//!
//! Local time, as people who plan a change window think of it. The clock changes twice a year, and a window must not be
//! lost then, nor come twice: where its beginning does not exist on that day it begins as much later as the clock jumps,
//! and where it exists twice the first one counts; a window that would thereby end before it begins keeps its length.

use std::fmt;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

/// As the end of a window: 00:00 of the next day.
const MIDNIGHT: &str = "24:00";

/// Weekly hours: `Sat 02:00-04:00`, `Mon-Fri 22:00-23:30`, `Sat,Sun 23:00-01:00`, `daily 02:00-04:00`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The days on which it begins, from Monday on.
    days: [bool; 7],
    from: Time,
    /// Not after `from`: on the next day.
    to: Time,
    /// As it was written.
    text: String,
}

/// How the present stands to a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It is open until then.
    Open {
        /// The first moment that is no longer part of it.
        until: Timestamp,
    },
    /// It opens next then.
    At(Timestamp),
}

impl Window {
    /// Reads one. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = text.replace(", ", ",");
        let (days, hours) = plain.split_once(' ').ok_or("it has no days, or no hours")?;
        let (from, to) = hours.trim().split_once('-').ok_or("its hours have no beginning or no end")?;
        let (from, to) = (from.trim(), to.trim());
        if from == MIDNIGHT {
            return Err(format!("{MIDNIGHT} is the end of a day: it begins at 00:00 of the next one"));
        }
        let to_midnight = to == MIDNIGHT;
        let (from, to) = (time(from)?, time(if to_midnight { "00:00" } else { to })?);
        if from == to && !to_midnight {
            return Err("it begins and ends at the same time".into());
        }
        let mut chosen = [false; 7];
        if days == "daily" {
            chosen = [true; 7];
        } else {
            for part in days.split(',') {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (first, last) = (day(first)?, day(last)?);
                // Fri-Mon goes over the end of the week.
                let mut at = first;
                loop {
                    chosen[at] = true;
                    if at == last {
                        break;
                    }
                    at = (at + 1) % 7;
                }
            }
        }
        Ok(Self { days: chosen, from, to, text: text.to_owned() })
    }

    /// Is it open at `now`, in the local time of `zone`, and until when? Else: when does it open next?
    pub fn opening(&self, now: Timestamp, zone: &TimeZone) -> Opening {
        let today = zone.to_datetime(now).date();
        let mut next: Option<Timestamp> = None;
        // One may have begun yesterday; the next one begins within a week.
        for ahead in -1..=8_i64 {
            let Ok(date) = today.checked_add(Span::new().days(ahead)) else { continue };
            let Some((start, end)) = self.on(date, zone) else { continue };
            if start <= now && now < end {
                return Opening::Open { until: end };
            }
            if start > now {
                next = Some(next.map_or(start, |next| next.min(start)));
            }
        }
        Opening::At(next.unwrap_or(Timestamp::MAX))
    }

    /// Its beginning and end, where it begins on this date.
    fn on(&self, date: Date, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
        if !self.days[usize::try_from(date.weekday().to_monday_zero_offset()).ok()?] {
            return None;
        }
        let last = if self.to > self.from { date } else { date.tomorrow().ok()? };
        let instant = |date: Date, time: Time| zone.to_ambiguous_timestamp(date.to_datetime(time)).compatible().ok();
        let (start, end) = (instant(date, self.from)?, instant(last, self.to)?);
        let length = last.to_datetime(self.to).duration_since(date.to_datetime(self.from));
        Some((start, if end > start { end } else { start.checked_add(length).ok()? }))
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn day(text: &str) -> Result<usize, String> {
    let names: Vec<&str> = DAYS.iter().map(|(name, _)| *name).collect();
    names
        .iter()
        .position(|name| name.eq_ignore_ascii_case(text))
        .ok_or_else(|| format!("{text:?} is no day: they are {}, and daily", names.join(", ")))
}

/// `02:00`, `2:30`.
fn time(text: &str) -> Result<Time, String> {
    let wrong = || format!("{text:?} is no time of day: write it like 02:00");
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && (1..=2).contains(&text.len());
    if !digits(hours) || !digits(minutes) || minutes.len() != 2 {
        return Err(wrong());
    }
    let (hours, minutes): (i8, i8) = (hours.parse().map_err(|_| wrong())?, minutes.parse().map_err(|_| wrong())?);
    Time::new(hours, minutes, 0, 0).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Central Europe: clocks go from 02:00 to 03:00 on the last Sunday of March, and from 03:00 to 02:00 on the last of
    /// October.
    fn zone() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn window(text: &str) -> Window {
        Window::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Every opening of a window within a time, found by walking through it minute by minute.
    fn openings(text: &str, from: &str, to: &str) -> Vec<(String, String)> {
        let (window, zone) = (window(text), zone());
        let (mut now, to) = (at(from), at(to));
        let mut found = Vec::new();
        let mut open: Option<Timestamp> = None;
        while now < to {
            match (window.opening(now, &zone), open) {
                (Opening::Open { until }, None) => {
                    found.push((now.to_string(), until.to_string()));
                    open = Some(until);
                }
                (Opening::Open { until }, Some(said)) => assert_eq!(until, said, "the end stays the same: {now}"),
                (Opening::At(next), before) => {
                    assert!(next > now, "{now}: {next}");
                    assert!(before.is_none_or(|end| end == now), "open until {before:?}, closed at {now}");
                    open = None;
                }
            }
            now += Span::new().minutes(1);
        }
        found
    }

    #[test]
    fn ordinary_weeks() {
        for (text, expected) in [
            ("Sat 02:00-04:00", &[("2026-11-28T01:00:00Z", "2026-11-28T03:00:00Z")][..]),
            // Begins on Saturday, ends on Sunday.
            ("Sat 23:00-01:00", &[("2026-11-28T22:00:00Z", "2026-11-29T00:00:00Z")]),
            ("sat 22:00-24:00", &[("2026-11-28T21:00:00Z", "2026-11-28T23:00:00Z")]),
            // All of Saturday.
            ("Sat 00:00-24:00", &[("2026-11-27T23:00:00Z", "2026-11-28T23:00:00Z")]),
            (
                "Fri-Sun 2:00-2:30",
                &[
                    ("2026-11-27T01:00:00Z", "2026-11-27T01:30:00Z"),
                    ("2026-11-28T01:00:00Z", "2026-11-28T01:30:00Z"),
                    ("2026-11-29T01:00:00Z", "2026-11-29T01:30:00Z"),
                ],
            ),
            (
                "Tue, Thu 12:00 - 13:00",
                &[("2026-11-24T11:00:00Z", "2026-11-24T12:00:00Z"), ("2026-11-26T11:00:00Z", "2026-11-26T12:00:00Z")],
            ),
        ] {
            let found = openings(text, "2026-11-22T23:00:00Z", "2026-11-29T23:00:00Z");
            let found: Vec<_> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(openings("daily 02:00-04:00", "2026-11-22T23:00:00Z", "2026-11-29T23:00:00Z").len(), 7);
    }

    #[test]
    fn the_nights_in_which_the_clock_changes() {
        // 2027-03-28: 02:00 to 03:00 does not exist. 2027-10-31: 02:00 to 03:00 comes twice.
        let (spring, autumn) =
            (("2027-03-27T12:00:00Z", "2027-03-28T12:00:00Z"), ("2027-10-30T12:00:00Z", "2027-10-31T12:00:00Z"));
        for (text, (from, to), start, end) in [
            ("Sun 01:00-05:00", spring, "2027-03-28T00:00:00Z", "2027-03-28T03:00:00Z"),
            ("Sun 02:00-04:00", spring, "2027-03-28T01:00:00Z", "2027-03-28T02:00:00Z"),
            // All of it is in the hour that is left out.
            ("Sun 02:10-02:50", spring, "2027-03-28T01:10:00Z", "2027-03-28T01:50:00Z"),
            ("Sun 01:30-02:30", spring, "2027-03-28T00:30:00Z", "2027-03-28T01:30:00Z"),
            // It would end before it begins.
            ("Sun 02:30-03:15", spring, "2027-03-28T01:30:00Z", "2027-03-28T02:15:00Z"),
            ("Sat 23:00-02:30", spring, "2027-03-27T22:00:00Z", "2027-03-28T01:30:00Z"),
            ("Sun 01:00-05:00", autumn, "2027-10-30T23:00:00Z", "2027-10-31T04:00:00Z"),
            // The first of the two.
            ("Sun 02:10-02:50", autumn, "2027-10-31T00:10:00Z", "2027-10-31T00:50:00Z"),
            ("Sun 02:00-04:00", autumn, "2027-10-31T00:00:00Z", "2027-10-31T03:00:00Z"),
        ] {
            let once = vec![(start.to_owned(), end.to_owned())];
            assert_eq!(openings(text, from, to), once, "{text}");
        }
    }

    #[test]
    fn every_day_has_its_window_in_every_zone() {
        for zone in
            ["CET-1CEST,M3.5.0,M10.5.0/3", "EST5EDT,M3.2.0,M11.1.0", "UTC0", "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0"]
        {
            let zone = TimeZone::posix(zone).unwrap();
            for text in ["daily 00:00-00:30", "daily 01:30-02:30", "daily 02:15-02:45", "daily 23:30-02:10"] {
                let window = window(text);
                let mut now = at("2027-01-01T12:00:00Z");
                for _ in 0..366 {
                    let Opening::At(next) = window.opening(now, &zone) else { panic!("{text} is open at noon") };
                    let wait = next.duration_since(now);
                    assert!(wait.as_hours() < 26, "{text}: {now}: {next}");
                    let Opening::Open { until } = window.opening(next, &zone) else { panic!("{text}: shut at {next}") };
                    assert!(until > next, "{text}: {next}");
                    now += Span::new().hours(24);
                }
            }
        }
    }

    #[test]
    fn what_is_no_window() {
        for (text, says) in [
            ("02:00-04:00", "no days"),
            ("Sat", "no days"),
            ("Sat 02:00", "no beginning or no end"),
            ("Sat 02:00-02:00", "same time"),
            ("Sat 00:00-00:00", "same time"),
            ("Sat 24:00-02:00", "00:00 of the next one"),
            ("Someday 02:00-04:00", "Someday"),
            ("Sat 2-4", "02:00"),
            ("Sat 25:00-26:00", "25:00"),
            ("Sat 02:60-03:00", "02:60"),
            ("Sat -2:00-03:00", "no time of day"),
            ("Sat,, 02:00-03:00", "no day"),
        ] {
            let error = Window::parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
