//! How the list of an append workload lies in the store.

/// The value that holds `elements`: decimal numbers joined by commas; no bytes for an empty list.
pub fn encode_list(elements: &[u64]) -> Vec<u8> {
    let numbers: Vec<String> = elements.iter().map(u64::to_string).collect();
    numbers.join(",").into_bytes()
}

/// The elements of a value, or `None` if [`encode_list`] cannot have written it.
pub fn decode_list(value: &[u8]) -> Option<Vec<u64>> {
    if value.is_empty() {
        return Some(Vec::new());
    }
    let text = std::str::from_utf8(value).ok()?;
    let elements = text.split(',').map(|number| number.parse().ok()).collect::<Option<Vec<_>>>()?;
    (encode_list(&elements) == value).then_some(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_back_and_other_values_do_not() {
        for list in [&[][..], &[7], &[0, u64::MAX, 3]] {
            assert_eq!(decode_list(&encode_list(list)).as_deref(), Some(list));
        }
        for value in ["a", "1,", "01", "+1", "1,,2", "18446744073709551616"] {
            assert_eq!(decode_list(value.as_bytes()), None, "{value}");
        }
    }
}
