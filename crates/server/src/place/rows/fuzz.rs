//! Hostile bytes for the rows of the placement group.

use cribwork_fuzz::{Shape, target};
use cribwork_types::RangeId;

use super::*;
use crate::place::settings::Settings;

/// A row as one input: length of the key, key, value.
fn joined((key, value): Row) -> Vec<u8> {
    [&[key.len() as u8], &key[..], &value.unwrap_or_default()].concat()
}

#[test]
fn placement_rows() {
    let info = StoreInfo { id: StoreId(7), address: "a:1".into(), ..StoreInfo::default() };
    let point = ServicePoint { service: "backup".into(), expires_ms: 5, safe_point: 6 };
    let descriptor = RangeDescriptor { id: RangeId(3), ..RangeDescriptor::default() };
    let set = [("replication_factor", "5"), ("repair_after", "90s"), ("of a later build", "on")];
    let set = set.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let merging = MergeRow {
        id: 12,
        state: MergeState::Preparing,
        target: descriptor.clone(),
        source: descriptor.clone(),
    };
    let rows = [
        cluster(3),
        ids(&IdAllocator::new()),
        window(9),
        safe_point(4),
        service(&point),
        store(&info),
        newcomer(StoreId(7), 99),
        range(&descriptor),
        settings(&set),
        merge(&merging),
    ];
    target("placement_rows").seeds(rows.map(joined)).run(|bytes| {
        let (length, rest) = bytes.split_first().unwrap_or((&0, &[]));
        let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
        let mut stored = Stored::default();
        let read = stored.row(key, Bytes::copy_from_slice(value));
        for info in &stored.stores {
            let mut again = Stored::default();
            let (key, value) = store(info);
            again.row(&key, value.expect("a row that is there")).expect("what was written");
            assert_eq!(again.stores, std::slice::from_ref(info));
        }
        for point in &stored.services {
            let (written, encoded) = service(point);
            assert_eq!((&written[..], encoded.as_deref()), (key, Some(value)), "one encoding");
        }
        for row in &stored.merges {
            let (written, encoded) = merge(row);
            assert_eq!(
                (&written[..9], encoded.as_deref()),
                (&key[..9], Some(value)),
                "one encoding"
            );
        }
        if key.first() == Some(&SETTINGS) && read.is_ok() {
            let (_, encoded) = settings(&stored.settings);
            assert_eq!(encoded.as_deref(), Some(value), "settings have one encoding");
        }
        // Whatever is stored has a meaning: what cannot be read counts as not set.
        let policy = Settings::new(stored.settings).policy();
        assert!(matches!(policy.replication_factor.get(), 1 | 3 | 5));
        let kind = key.first().copied().unwrap_or_default();
        Shape::of(&(kind, Shape::decoded(&read, |()| 0)))
    });
}
