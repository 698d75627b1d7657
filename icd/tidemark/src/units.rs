//! Numbers for people.

/// A unit's name and how many of the smallest unit it is.
type Unit = (&'static str, u64);

const BYTES: [Unit; 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
const TIMES: [Unit; 4] = [("ns", 1), ("µs", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];

/// A number of bytes: `1.5 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    scaled(bytes, &BYTES)
}

/// A duration: `1.5 ms`.
pub(crate) fn nanoseconds(nanoseconds: u64) -> String {
    scaled(nanoseconds, &TIMES)
}

/// A number in groups of three digits: `12,345`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `value` in the largest of `units` of which it is at least one, to one decimal.
fn scaled(value: u64, units: &[Unit]) -> String {
    let tenths = |size: u64| (u128::from(value) * 10 + u128::from(size) / 2) / u128::from(size);
    // By the rounded value: 1048575 bytes are 1.0 MiB, not 1024.0 KiB.
    let large =
        units.windows(2).rev().find(|pair| tenths(pair[0].1) >= u128::from(pair[1].1 / pair[0].1) * 10);
    match large {
        Some([_, (name, size)]) => format!("{}.{} {name}", tenths(*size) / 10, tenths(*size) % 10),
        _ => format!("{value} {}", units[0].0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_unit_that_fits() {
        let cases =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")];
        for (value, text) in cases {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.0 µs"),
            (1_234_567, "1.2 ms"),
            (90_000_000_000, "90.0 s"),
        ];
        for (value, text) in cases {
            assert_eq!(nanoseconds(value), text);
        }
        assert_eq!(nanoseconds(999_960), "1.0 ms");
    }

    #[test]
    fn counts_are_grouped() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(value), text);
        }
    }
}
