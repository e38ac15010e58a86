use super::Report;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A row of `orders`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRow {
    /// The order.
    pub id: String,
    /// Where it stands.
    pub status: String,
}

/// A row of `ledger`, which has no unique constraint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// The order.
    pub order_id: String,
    /// `reserved`, `released`, `captured` or `shipped`.
    pub entry: String,
    /// How much.
    pub amount: i64,
    /// The message whose handler wrote it.
    pub message_id: String,
}

const ENTRIES: [&str; 4] = ["reserved", "released", "captured", "shipped"];

/// The order example's tables after a run.
///
/// Every order ends `confirmed` or `cancelled`. A confirmed one has exactly one reserved, captured and shipped, and none
/// released. A cancelled one has none captured and none shipped, and as many released as reserved: none or one.
///
/// Faults: `unfinished` (another status), `lost` (an entry is missing), `duplicated` (an entry, or an order, is there
/// twice), `ghosts` (an entry that must not be there, or of no order), `amounts` (money appears or vanishes).
pub fn check_orders(orders: &[OrderRow], ledger: &[LedgerRow]) -> Report {
    check(None, orders, ledger)
}

/// The same, and every order that was placed is there: faults are then `lost` too, and `ghosts` for orders that nobody
/// placed.
pub fn check_placed_orders(placed: &[String], orders: &[OrderRow], ledger: &[LedgerRow]) -> Report {
    check(Some(placed), orders, ledger)
}

#[derive(Default)]
struct Entries<'a>(BTreeMap<&'a str, Vec<i64>>);

impl Entries<'_> {
    fn count(&self, entry: &str) -> usize {
        self.0.get(entry).map_or(0, Vec::len)
    }
}

fn check(placed: Option<&[String]>, orders: &[OrderRow], ledger: &[LedgerRow]) -> Report {
    let mut report = Report::new(&["unfinished", "lost", "duplicated", "ghosts", "amounts"]);
    let mut entries: HashMap<&str, Entries<'_>> = HashMap::new();
    for row in ledger {
        let list = &mut entries.entry(&row.order_id).or_default().0;
        list.entry(&row.entry).or_default().push(row.amount);
        if !ENTRIES.contains(&row.entry.as_str()) {
            report.fault("ghosts", || format!("order {} has an entry {:?}", row.order_id, row.entry));
        }
    }
    let mut known = HashSet::new();
    for order in orders {
        if !known.insert(order.id.as_str()) {
            report.fault("duplicated", || format!("order {} is there twice", order.id));
            continue;
        }
        let none = Entries::default();
        let own = entries.get(order.id.as_str()).unwrap_or(&none);
        judge_order(&mut report, order, own);
    }
    for id in entries.keys().filter(|id| !known.contains(*id)) {
        report.fault("ghosts", || format!("entries of order {id}, which does not exist"));
    }
    if let Some(placed) = placed {
        let placed: HashSet<&str> = placed.iter().map(String::as_str).collect();
        for id in placed.iter().filter(|id| !known.contains(*id)) {
            report.fault("lost", || format!("order {id} was placed"));
        }
        for id in known.iter().filter(|id| !placed.contains(*id)) {
            report.fault("ghosts", || format!("nobody placed order {id}"));
        }
    }
    report.saw("orders", orders.len());
    report.saw("entries", ledger.len());
    report.judge(orders.len() + placed.map_or(0, <[String]>::len))
}

fn judge_order(report: &mut Report, order: &OrderRow, own: &Entries<'_>) {
    let wanted: BTreeMap<&str, usize> = match order.status.as_str() {
        "confirmed" => {
            report.saw("confirmed", 1);
            BTreeMap::from([("reserved", 1), ("captured", 1), ("shipped", 1), ("released", 0)])
        }
        "cancelled" => {
            report.saw("cancelled", 1);
            // what was reserved is released, once
            let reserved = own.count("reserved").min(1);
            BTreeMap::from([("reserved", reserved), ("captured", 0), ("shipped", 0), ("released", reserved)])
        }
        status => return report.fault("unfinished", || format!("order {} is {status:?}", order.id)),
    };
    for (entry, wanted) in wanted {
        let there = own.count(entry);
        let fault = match there {
            _ if there == wanted => continue,
            _ if there < wanted => "lost",
            _ if wanted == 0 && there == 1 => "ghosts",
            _ => "duplicated",
        };
        report.fault(fault, || format!("order {}, {}: {there} {entry}, not {wanted}", order.id, order.status));
    }
    let sum = |entry| own.0.get(entry).map_or(0, |amounts| amounts.iter().map(|amount| amount.abs()).sum::<i64>());
    let settled = if order.status == "confirmed" { "captured" } else { "released" };
    let alike = own.count("reserved") == own.count(settled);
    if alike && sum("reserved") != sum(settled) {
        report.fault("amounts", || {
            format!("order {}: {} reserved, {} {settled}", order.id, sum("reserved"), sum(settled))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    fn order(id: &str, status: &str) -> OrderRow {
        OrderRow { id: id.into(), status: status.into() }
    }

    fn entry(order_id: &str, entry: &str) -> LedgerRow {
        LedgerRow {
            order_id: order_id.into(),
            entry: entry.into(),
            amount: 5,
            message_id: format!("{order_id}-{entry}"),
        }
    }

    /// One confirmed, one cancelled after the reservation, one cancelled before it.
    fn good() -> (Vec<OrderRow>, Vec<LedgerRow>) {
        let orders = vec![order("1", "confirmed"), order("2", "cancelled"), order("3", "cancelled")];
        let rows = [("1", "reserved"), ("1", "captured"), ("1", "shipped"), ("2", "reserved"), ("2", "released")];
        (orders, rows.map(|(id, what)| entry(id, what)).into())
    }

    fn placed() -> Vec<String> {
        ["1", "2", "3"].map(String::from).into()
    }

    fn finds(fault: &str, plant: impl FnOnce(&mut Vec<OrderRow>, &mut Vec<LedgerRow>)) {
        let (mut orders, mut ledger) = good();
        plant(&mut orders, &mut ledger);
        let report = check_placed_orders(&placed(), &orders, &ledger);
        assert_eq!((report.verdict, report.count(fault), report.examples.len()), (Verdict::False, 1, 1), "{report:?}");
    }

    #[test]
    fn a_sound_run_holds_and_an_empty_one_is_vacuous() {
        let (orders, ledger) = good();
        for report in [check_orders(&orders, &ledger), check_placed_orders(&placed(), &orders, &ledger)] {
            assert!(report.holds(), "{report:?}");
            assert_eq!((report.count("confirmed"), report.count("cancelled")), (1, 2));
        }
        assert_eq!(check_orders(&[], &[]).verdict, Verdict::Vacuous);
        assert_eq!(check_placed_orders(&[], &[], &[]).verdict, Verdict::Vacuous);
        assert_eq!(check_placed_orders(&placed(), &[], &[]).count("lost"), 3);
    }

    #[test]
    fn every_planted_violation_is_found() {
        finds("unfinished", |orders, ledger| {
            orders[2].status = "placed".into();
            ledger.push(entry("3", "reserved"));
        });
        for missing in 0..3 {
            finds("lost", |_, ledger| drop(ledger.remove(missing)));
        }
        finds("lost", |_, ledger| drop(ledger.pop()));
        finds("lost", |orders, _| drop(orders.pop()));
        finds("ghosts", |_, ledger| ledger.push(entry("1", "released")));
        finds("ghosts", |_, ledger| ledger.push(entry("2", "captured")));
        finds("ghosts", |_, ledger| ledger.push(entry("2", "shipped")));
        finds("ghosts", |_, ledger| ledger.push(entry("3", "released")));
        finds("ghosts", |_, ledger| ledger.push(entry("9", "reserved")));
        finds("ghosts", |_, ledger| ledger.push(entry("1", "refunded")));
        finds("ghosts", |orders, _| orders.push(order("9", "cancelled")));
        for what in ["reserved", "captured", "shipped"] {
            finds("duplicated", |_, ledger| ledger.push(entry("1", what)));
        }
        finds("duplicated", |_, ledger| ledger.push(entry("2", "released")));
        finds("duplicated", |_, ledger| ledger.push(entry("2", "reserved")));
        finds("duplicated", |orders, _| orders.push(order("1", "confirmed")));
        finds("amounts", |_, ledger| ledger[1].amount = 4);
        finds("amounts", |_, ledger| ledger[4].amount = 6);
    }
}
