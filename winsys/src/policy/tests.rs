//! What the policy decides, for workloads that take turns. What tracked pages cost is made up.

use super::*;

const COSTS: Costs =
    Costs { call: 400.0, look: 1.0, first: 2000.0, fault: 700.0, dirty_bit: None, copy: 400.0 };

const PAGES: usize = 256;

/// Flushes `asked`, of which the host wrote `written` since. Returns the plans.
fn flush_part(
    policy: &mut Policy,
    asked: Range<usize>,
    written: impl Fn(usize) -> bool,
) -> Vec<(Range<usize>, Plan)> {
    let mut plans = Vec::new();
    let _ = policy.plan(asked.clone(), &mut plans);
    let mut at = asked.start;
    for (pages, plan) in &plans {
        assert_eq!(pages.start, at, "{plans:?}");
        assert!(!pages.is_empty());
        at = pages.end;
        if *plan == Plan::Collect {
            let found = pages.clone().filter(|page| written(*page)).map(|page| page..page + 1);
            policy.observe(pages.clone(), found);
        }
    }
    assert_eq!(at, asked.end, "{plans:?}");
    let _ = policy.conclude();
    plans
}

fn flush(policy: &mut Policy, written: impl Fn(usize) -> bool) -> Vec<(Range<usize>, Plan)> {
    flush_part(policy, 0..PAGES, written)
}

/// Pages by what was done with them.
fn count(plans: &[(Range<usize>, Plan)], wanted: Plan) -> usize {
    plans.iter().filter(|(_, plan)| *plan == wanted).map(|(pages, _)| pages.len()).sum()
}

/// Other pages each round: so many in a hundred.
fn shifting(round: usize, share: usize) -> impl Fn(usize) -> bool {
    let count = PAGES * share / 100;
    move |page| (page + PAGES - round * count % PAGES) % PAGES < count
}

#[test]
fn what_is_cheaper_to_copy_than_to_ask_about_is_copied_always() {
    for (pages, plan) in [(1, Plan::Copy), (2, Plan::Collect)] {
        let mut policy = Policy::new(pages, COSTS, false);
        assert_eq!(flush_part(&mut policy, 0..pages, |_| true), [(0..pages, plan)]);
    }
    assert_eq!(Policy::new(1, COSTS, false).treatment(), Treatment::Tiny);
}

#[test]
fn pages_written_twice_in_a_row_are_copied_and_the_others_are_not() {
    let mut policy = Policy::new(PAGES, COSTS, false);
    let steady = |page| (64..80).contains(&page) || page == 200;
    for _ in 0..2 {
        assert_eq!(flush(&mut policy, steady), [(0..PAGES, Plan::Collect)]);
    }
    assert_eq!(policy.treatment(), Treatment::ByPage { hot: 17 });
    let expected = [
        (0..64, Plan::Collect),
        (64..80, Plan::Copy),
        (80..200, Plan::Collect),
        (200..201, Plan::Copy),
        (201..PAGES, Plan::Collect),
    ];
    assert_eq!(flush(&mut policy, steady), expected);
}

#[test]
fn a_page_between_hot_ones_is_copied_along_if_that_is_cheaper_than_to_ask() {
    let mut policy = Policy::new(PAGES, COSTS, false);
    for _ in 0..2 {
        flush(&mut policy, |page| page == 10 || page == 12 || page == 16);
    }
    let expected = [
        (0..10, Plan::Collect),
        (10..13, Plan::Copy),
        (13..16, Plan::Collect),
        (16..17, Plan::Copy),
        (17..PAGES, Plan::Collect),
    ];
    assert_eq!(flush(&mut policy, |_| false), expected);
}

#[test]
fn pages_written_every_other_time_stay_tracked() {
    let mut policy = Policy::new(PAGES, COSTS, false);
    for round in 0..100 {
        let plans = flush(&mut policy, |page| page < 8 && round % 2 == 0);
        assert_eq!(plans, [(0..PAGES, Plan::Collect)]);
    }
}

#[test]
fn flushes_of_other_pages_do_not_count() {
    let mut policy = Policy::new(PAGES, COSTS, false);
    // A ring: each quarter in turn, written whole and flushed alone.
    for round in 0..8 {
        let start = round % 4 * 64;
        assert_eq!(flush_part(&mut policy, start..start + 64, |_| true).len(), 1);
    }
    let plans = flush_part(&mut policy, 0..64, |_| true);
    assert_eq!(plans, [(0..64, Plan::Copy)]);
}

#[test]
fn hot_pages_that_calmed_down_are_tracked_again_soon() {
    let mut policy = Policy::new(PAGES, COSTS, false);
    for _ in 0..40 {
        flush(&mut policy, |page| page < 128);
    }
    let copied: Vec<usize> =
        (0..40).map(|_| PAGES - count(&flush(&mut policy, |_| false), Plan::Collect)).collect();
    assert_eq!(copied[0], 128);
    assert_eq!(copied[39], 0, "{copied:?}");
    assert_eq!(policy.treatment(), Treatment::ByPage { hot: 0 });
}

#[test]
fn the_test_of_hot_pages_costs_a_hundredth_of_copying_them() {
    let mut policy = Policy::new(PAGES, COSTS, false);
    let rounds = |policy: &mut Policy, rounds: usize| -> (usize, usize) {
        let plans: Vec<_> = (0..rounds).map(|_| flush(policy, |page| page < 200)).collect();
        let sum = |plan| plans.iter().map(|plans| count(plans, plan)).sum();
        (sum(Plan::Arm), sum(Plan::Copy))
    };
    rounds(&mut policy, 300);
    let (armed, copied) = rounds(&mut policy, 1000);
    // Each test has its first fault and its calls, too.
    let price = COSTS.track(armed) + COSTS.first * 0.03 * COSTS.copy(1);
    let ratio = price / COSTS.copy(copied);
    assert!((0.0025..=BUDGET).contains(&ratio), "{ratio}");
}

#[test]
fn an_allocation_whose_writes_move_on_is_copied_whole_if_they_are_many() {
    for (share, expected) in [(10, Treatment::ByPage { hot: 0 }), (50, Treatment::Whole)] {
        let mut policy = Policy::new(PAGES, COSTS, false);
        (0..20).for_each(|round| drop(flush(&mut policy, shifting(round, share))));
        assert_eq!(policy.treatment(), expected, "{share} %");
    }
}

#[test]
fn a_switch_tells_why_and_a_trial_that_confirms_it_is_none() {
    let mut policy = Policy::new(PAGES, COSTS, false);
    let mut switches = Vec::new();
    for round in 0..300 {
        let written = shifting(round, if round < 200 { 50 } else { 1 });
        let mut plans = Vec::new();
        let _ = policy.plan(0..PAGES, &mut plans);
        if plans[0].1 == Plan::Collect {
            let found = (0..PAGES).filter(|page| written(*page)).map(|page| page..page + 1);
            policy.observe(0..PAGES, found);
        }
        switches.extend(policy.conclude());
    }
    let [there, back] = switches[..] else { panic!("{switches:?}") };
    assert!(there.to == Treatment::Whole && there.by_page > there.whole, "{there}");
    assert!(back.to == Treatment::ByPage { hot: 0 } && back.by_page < back.whole, "{back}");
    assert!(there.to_string().starts_with("copied whole from now on: a flush costs "));
}

#[test]
fn an_allocation_that_is_copied_whole_is_tried_ever_less_often() {
    let mut policy = Policy::new(PAGES, COSTS, false);
    let tracked = |policy: &mut Policy, rounds: usize| {
        (0..rounds).filter(|round| count(&flush(policy, shifting(*round, 50)), Plan::Copy) < PAGES).count()
    };
    let (soon, late) = (tracked(&mut policy, 200), tracked(&mut policy, 200));
    assert!(soon > late && late > 0, "{soon}, {late}");
    assert!(late < 20, "{late}");
}

#[test]
fn an_allocation_that_is_copied_whole_finds_its_way_back() {
    let mut policy = Policy::new(PAGES, COSTS, false);
    (0..30).for_each(|round| drop(flush(&mut policy, shifting(round, 50))));
    (0..80).for_each(|round| drop(flush(&mut policy, shifting(round, 1))));
    assert_eq!(policy.treatment(), Treatment::ByPage { hot: 0 });
    let mut before = Policy::new(PAGES, COSTS, false);
    flush(&mut before, |_| false);
    assert_eq!(policy.interval, before.interval);
}

#[test]
fn an_allocation_that_is_rarely_written_but_whole_stays_tracked() {
    let mut policy = Policy::new(PAGES, COSTS, false);
    for round in 1..1000 {
        let plans = flush(&mut policy, |_| round % 100 == 0);
        assert_eq!(plans, [(0..PAGES, Plan::Collect)]);
    }
}

#[test]
fn plans_cover_any_range_in_order_whatever_came_before() {
    let mut policy = Policy::new(100, COSTS, false);
    for round in 0..200 {
        for (start, end) in [(0, 100), (3, 40), (33, 34), (0, 100), (90, 100), (0, 100)] {
            flush_part(&mut policy, start..end, |page| (page * 7 + round / 20) % 3 == 0);
        }
    }
}

/// With another way to track.
const BY_BITS: Costs = Costs { dirty_bit: Some(30.0), ..COSTS };

/// Flushes all, round after round. Returns what the tracker was told, and the switches.
fn run(
    policy: &mut Policy,
    rounds: Range<usize>,
    written: impl Fn(usize, usize) -> bool,
) -> (Vec<Method>, Vec<Switch>) {
    let (mut methods, mut switches, mut plans) = (Vec::new(), Vec::new(), Vec::new());
    for round in rounds {
        methods.extend(policy.plan(0..PAGES, &mut plans));
        for (pages, _) in plans.iter().filter(|(_, plan)| *plan == Plan::Collect) {
            let found = pages.clone().filter(|page| written(round, *page)).map(|page| page..page + 1);
            policy.observe(pages.clone(), found);
        }
        switches.extend(policy.conclude());
    }
    (methods, switches)
}

#[test]
fn dirty_bits_are_looked_at_where_writes_move_on_and_are_not_few() {
    for (share, expected) in
        [(1, Treatment::ByPage { hot: 0 }), (10, Treatment::ByDirtyBits), (50, Treatment::ByDirtyBits)]
    {
        let mut policy = Policy::new(PAGES, BY_BITS, true);
        run(&mut policy, 0..40, |round, page| shifting(round, share)(page));
        assert_eq!(policy.treatment(), expected, "{share} %");
    }
}

#[test]
fn the_method_follows_how_dense_the_writes_are_and_says_why() {
    let mut policy = Policy::new(PAGES, BY_BITS, true);
    let (methods, switches) = run(&mut policy, 0..60, |round, page| shifting(round, 50)(page));
    assert_eq!(methods, [Method::DirtyBits]);
    let [there] = switches[..] else { panic!("{switches:?}") };
    assert!(there.to_string().starts_with("tracked by dirty bits from now on: a flush costs "), "{there}");
    assert!(there.by_dirty_bits.is_some_and(|price| price < there.by_page.min(there.whole)), "{there}");
    let (methods, switches) = run(&mut policy, 60..300, |round, page| shifting(round, 1)(page));
    assert_eq!(methods, [Method::Mkwrite]);
    let [back] = switches[..] else { panic!("{switches:?}") };
    assert!(back.by_dirty_bits.is_some_and(|price| price > back.by_page), "{back}");
    let (methods, _) = run(&mut policy, 300..400, |round, page| shifting(round, 50)(page));
    assert_eq!(methods, [Method::DirtyBits]);
}

#[test]
fn by_dirty_bits_no_page_is_copied_unasked() {
    let mut policy = Policy::new(PAGES, BY_BITS, true);
    run(&mut policy, 0..40, |round, page| shifting(round, 50)(page));
    for round in 0..20 {
        assert_eq!(flush(&mut policy, shifting(round, 50)), [(0..PAGES, Plan::Collect)]);
    }
}

#[test]
fn pages_written_each_time_are_hot_and_not_looked_at() {
    let mut policy = Policy::new(PAGES, BY_BITS, true);
    let (methods, _) = run(&mut policy, 0..100, |_, page| page < 100);
    assert_eq!((methods, policy.treatment()), (vec![], Treatment::ByPage { hot: 100 }));
}

#[test]
fn dirty_bits_that_cost_as_much_as_copies_give_way_to_copies() {
    let costs = Costs { dirty_bit: Some(390.0), ..COSTS };
    let mut policy = Policy::new(PAGES, costs, true);
    run(&mut policy, 0..20, |round, page| shifting(round, 50)(page));
    assert_eq!(policy.treatment(), Treatment::Whole);
}

#[test]
fn an_allocation_that_is_copied_whole_is_tried_by_dirty_bits() {
    let costs = Costs { dirty_bit: Some(390.0), ..COSTS };
    let mut policy = Policy::new(PAGES, costs, true);
    let (mut methods, _) = run(&mut policy, 0..20, |round, page| shifting(round, 50)(page));
    let (others, switches) = run(&mut policy, 20..100, |round, page| shifting(round, 1)(page));
    methods.extend(others);
    assert_eq!(methods, [Method::DirtyBits, Method::Mkwrite]);
    let [switch] = switches[..] else { panic!("{switches:?}") };
    assert!(matches!(switch.to, Treatment::ByPage { .. }), "{switch}");
}
