//! The one way to write a date, and all the ways that stock peers write one.
//!
//! Python peers accept at most six fractional digits; with more, the value stays text and their arithmetic on
//! it fails (the ipyparallel 9 wire).

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant in microseconds since 1970-01-01T00:00:00Z; years 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    micros: i64,
}

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z: what four digits of a year can say.
const MICROS_MIN: i64 = -62_135_596_800 * MICROS_PER_SECOND;
const MICROS_MAX: i64 = 253_402_300_800 * MICROS_PER_SECOND - 1;

impl Date {
    /// The date of a system time; a clock outside years 1 to 9999 is clamped.
    pub fn from_system_time(time: SystemTime) -> Date {
        let micros = match time.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
        };
        Date::from_micros(micros)
    }

    /// The date that many microseconds after 1970; clamped to years 1 to 9999.
    pub fn from_micros(micros: i64) -> Date {
        Date { micros: micros.clamp(MICROS_MIN, MICROS_MAX) }
    }

    /// Microseconds since 1970.
    pub fn micros(self) -> i64 {
        self.micros
    }

    /// Time since an earlier date; zero if it is not earlier.
    pub fn since(self, earlier: Date) -> Duration {
        Duration::from_micros(self.micros.saturating_sub(earlier.micros).max(0) as u64)
    }

    /// Reads `YYYY-MM-DDTHH:MM:SS[.f{1,6}][Z|±HH:MM|±HHMM]`; without a zone it is UTC.
    pub fn parse(text: &str) -> Option<Date> {
        let bytes = text.as_bytes();
        let (date, rest) = bytes.split_at_checked(19)?;
        if date[4] != b'-'
            || date[7] != b'-'
            || !matches!(date[10], b'T' | b' ')
            || date[13] != b':'
            || date[16] != b':'
        {
            return None;
        }
        let year = number(&date[0..4])?;
        let (month, day) = (number(&date[5..7])?, number(&date[8..10])?);
        let (hour, minute, second) = (number(&date[11..13])?, number(&date[14..16])?, number(&date[17..19])?);
        if year < 1 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let (fraction, zone) = match rest {
            [b'.', digits @ ..] => {
                let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
                if !(1..=6).contains(&count) {
                    return None;
                }
                let scale = 10_i64.pow(6 - count as u32);
                (number(&digits[..count])? * scale, &digits[count..])
            }
            _ => (0, rest),
        };
        let offset_minutes = match zone {
            [] | [b'Z'] => 0,
            [sign @ (b'+' | b'-'), h1, h2, rest @ ..] => {
                let minutes = match rest {
                    [b':', m1, m2] | [m1, m2] => number(&[*m1, *m2])?,
                    _ => return None,
                };
                let offset = number(&[*h1, *h2])? * 60 + minutes;
                if *sign == b'-' { -offset } else { offset }
            }
            _ => return None,
        };
        let seconds =
            ((days_from_civil(year, month, day) * 24 + hour) * 60 + minute - offset_minutes) * 60 + second;
        Some(Date::from_micros(seconds * MICROS_PER_SECOND + fraction))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.micros.div_euclid(MICROS_PER_DAY);
        let micros = self.micros.rem_euclid(MICROS_PER_DAY);
        let (year, month, day) = civil_from_days(days);
        let seconds = micros / MICROS_PER_SECOND;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            micros % MICROS_PER_SECOND
        )
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Date::parse(&text).ok_or_else(|| serde::de::Error::custom("not an ISO 8601 date"))
    }
}

/// Decimal digits only; at most six of them, so that it cannot overflow.
fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (H. Hinnant, "chrono-compatible low-level date
/// algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`]: year, month, day.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_are_written_with_six_digits_and_a_zone() {
        assert_eq!(Date::from_micros(1_767_323_045_678_901).to_string(), "2026-01-02T03:04:05.678901Z");
        assert_eq!(Date::from_micros(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Date::from_micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn every_form_that_stock_peers_write_is_read() {
        let expected = Date::from_micros(1_767_323_045_678_900);
        for text in [
            "2026-01-02T03:04:05.6789Z",
            "2026-01-02T03:04:05.678900",
            "2026-01-02T05:04:05.6789+02:00",
            "2026-01-01T21:34:05.6789-0530",
        ] {
            assert_eq!(Date::parse(text), Some(expected), "{text}");
        }
        assert_eq!(
            Date::parse("2024-02-29T00:00:00Z").map(|date| date.to_string()).as_deref(),
            Some("2024-02-29T00:00:00.000000Z")
        );
    }

    #[test]
    fn what_stock_peers_would_leave_as_text_is_refused() {
        for text in [
            "",
            "2026",
            "2026-01-02",
            "2026-01-02T03:04:05.",
            "2026-01-02T03:04:05.1234567Z",
            "2026-13-02T03:04:05Z",
            "2026-02-29T03:04:05Z",
            "2026-01-02T24:00:00Z",
            "2026-01-02T03:04:05Zjunk",
            "2026-01-02T03:04:05+1",
            "0000-01-01T00:00:00Z",
            "2026-01-0\u{660}T03:04:05Z",
            "+026-01-02T03:04:05Z",
        ] {
            assert_eq!(Date::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn writing_then_reading_gives_the_same_date(micros in MICROS_MIN..=MICROS_MAX) {
            let date = Date::from_micros(micros);
            prop_assert_eq!(Date::parse(&date.to_string()), Some(date));
        }

        #[test]
        fn reading_never_panics(text in ".{0,40}") {
            let _ = Date::parse(&text);
        }
    }
}
