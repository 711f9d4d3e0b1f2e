//! Records of use as text; see [`super`].

use std::collections::BTreeMap;

use crate::store::StorePath;

const HEADER: &str = "stowage-used 1";

/// What is recorded of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// When it was used, in seconds since the epoch.
    pub time: u64,
    /// The derivation that it is an output of.
    pub deriver: Option<StorePath>,
}

/// What is recorded of paths, by their hash parts.
pub type Used = BTreeMap<String, Use>;

impl Use {
    /// Of a path that was left out.
    pub(super) const LEFT_OUT: Self = Self { time: 0, deriver: None };

    /// Whether the path was left out.
    #[must_use]
    pub fn is_left_out(&self) -> bool {
        *self == Self::LEFT_OUT
    }
}

/// The newer of each.
pub(super) fn merge(used: &mut Used, others: Used) {
    for (hash, one) in others {
        match used.get_mut(&hash) {
            Some(known) if known.time >= one.time => {}
            Some(known) => *known = one,
            None => drop(used.insert(hash, one)),
        }
    }
}

/// What a record says; `None` for what is none, or another version's.
pub(super) fn parse(contents: &[u8]) -> Option<Used> {
    let text = String::from_utf8_lossy(contents);
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return None;
    }
    let entry = |line: &str| {
        let mut fields = line.split(' ');
        let (hash, time) = (fields.next()?.to_owned(), fields.next()?.parse().ok()?);
        let deriver = fields.next().and_then(|name| StorePath::from_basename(name.as_bytes()).ok());
        Some((hash, Use { time, deriver }))
    };
    Some(lines.filter_map(entry).collect())
}

pub(super) fn render(used: &Used) -> String {
    let line = |(hash, one): (&String, &Use)| {
        let deriver = one.deriver.as_ref().map_or_else(|| "-".to_owned(), StorePath::to_basename);
        format!("{hash} {} {deriver}\n", one.time)
    };
    let lines = used.iter().map(line);
    std::iter::once(format!("{HEADER}\n")).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::closure::tests::path;

    #[test]
    fn a_record_is_read_as_it_was_written_and_damage_passed_over() {
        let deriver = Some(path('d', "x.drv"));
        let used: Used =
            [("a".to_owned(), Use { time: 7, deriver }), ("b".to_owned(), Use { time: 1_700_000_000, deriver: None })]
                .into();
        let text = "stowage-used 1\na 7 dddddddddddddddddddddddddddddddd-x.drv\nb 1700000000 -\n";
        assert_eq!(render(&used), text);
        assert_eq!(parse(text.as_bytes()).as_ref(), Some(&used));
        assert_eq!(parse(text.replace("b 17", "x\nc -1\nb 17").as_bytes()), Some(used));
        assert_eq!(parse(b"stowage-used 2\na 7\n"), None);
        assert_eq!(parse(b""), None);
    }
}
