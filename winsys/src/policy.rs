//! Policy: which pages of an allocation are tracked, by what, and which are simply copied.
//!
//! A tracked page costs a fault for its first write after each flush; a page that is copied unasked costs the copy,
//! written or not. Kernel drivers that weigh faults against scans of dirty bits switch at a tenth of the pages; against
//! copies it is more like a third to a half, and both prices depend on the machine and on how large the allocation is.
//! So they are [measured](Costs), and the choice is made at two sizes:
//!
//! - A *page* that was written at two flushes in a row is *hot*: it stays writable, and every flush copies it. The rest
//!   of the allocation stays tracked. Applications put a few structures that change each time into large, mostly idle
//!   heaps: this beats tracking all of it and copying all of it.
//! - An *allocation* in which other pages are written each time has no hot pages, and tracking it may still cost more
//!   than copying it whole. What tracking cost more, flush by flush, is added up; when that would have paid for a copy of
//!   everything, everything is copied.
//!
//! A kernel driver may have another way to track an allocation: by dirty bits. Writes cost nothing then, but each flush
//! looks at every page that was ever written. That lies in between: dearer than faults where few of those pages are written
//! at a time, and cheaper than a copy of everything unless nearly all are. Its costs are added up likewise, and whatever
//! would have been cheapest comes next.
//!
//! None of it lasts. By dirty bits the policy sees all that it needs to change its mind. Some hot pages at a time are tracked again to see whether they are still written, and so is an
//! allocation that is copied whole: by dirty bits, where there are any; soon at first, and in the end as often as a hundredth of the time that copying
//! takes pays for it.

use crate::costs::Costs;
use crate::page_set::PageSet;
use crate::tracker::Method;
use std::fmt;
use std::ops::Range;

/// The share of copying's cost that goes into finding out whether it is still the right thing to do.
const BUDGET: f32 = 0.01;

/// Hot pages that are tested at a time: a sixteenth of them, so that a test is no hitch, but at least so many, as each
/// test has a fixed cost.
const SLICE: usize = 32;

/// The share of a test's price that must be there for the first one. It doubles with each that most pages pass.
const FIRST_TEST: f32 = 1.0 / 8.0;

/// Copies of everything that tracking may have saved so far at most, as far as the choice is concerned: an allocation
/// that is rarely written, but then all of it, is not copied for that.
const MEMORY: f32 = 16.0;

/// Flushes for which an allocation is copied whole before it is tracked again: at first, and at most.
const INTERVALS: Range<u32> = 8..1024;

/// How one allocation's pages are treated.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Pages of the allocation.
    pages: usize,
    costs: Costs,
    mode: Mode,
    /// What was said of the mode last.
    said: Kind,
    /// How the tracker goes about it, where it has a choice.
    method: Option<Method>,
    /// Pages that were ever found written, where it has: dirty bits are looked at in these. And their number.
    known: PageSet,
    known_count: usize,
    /// Pages that every flush copies. They are not watched.
    hot: PageSet,
    /// Tracked pages that were written when last asked about.
    recent: PageSet,
    test: Test,
    /// Flushes to copy the whole for, next time.
    interval: u32,
    flush: Flush,
}

/// The choice for the allocation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// Too small to ask about: a copy is always cheaper.
    Tiny,
    /// The tracker is asked. By faults, each page is tracked, or hot; by dirty bits, all are tracked.
    Asked {
        method: Method,
        /// What tracking cost more than the cheapest other way would have, so far, in nanoseconds.
        regret: f32,
        /// Whether it is known which pages were written before.
        is_settled: bool,
        /// Whether it was copied whole before, and will be again unless tracking does better at once.
        is_trial: bool,
    },
    /// All of it is copied, for so many more flushes.
    Whole { left: u32 },
}

/// Ways to treat an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tiny,
    Asked(Method),
    Whole,
}

/// Tests of hot pages.
#[derive(Debug)]
struct Test {
    /// Hot pages.
    hot: usize,
    /// What may be spent on the next one, in nanoseconds, and the share of its price that it takes.
    credit: f32,
    share: f32,
    /// Where it starts, in pages.
    hand: usize,
    /// The pages in the present one, if there is one, and how many of them were hot.
    slice: Range<usize>,
    tested: usize,
    /// How many of them were found hot again, once the tracker was asked.
    passed: usize,
    is_over: bool,
    /// Few were: all others are tested next.
    is_urgent: bool,
}

/// What the present flush comes to, in pages.
#[derive(Debug, Default)]
struct Flush {
    all: usize,
    asked: usize,
    calls: usize,
    copied: usize,
    /// Found written, by having been written before or not.
    again: usize,
    fresh: usize,
    /// Where hot pages were put to the test, and how many.
    slice: Range<usize>,
    tested: usize,
}

/// What to do with some pages at a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Ask the tracker.
    Collect,
    /// Take them for written.
    Copy,
    /// Take them for written, and have them watched from before the copy on.
    Arm,
}

/// How an allocation is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It is so small that a copy costs less than to ask what was written.
    Tiny,
    /// Pages are tracked, but for those written each time.
    ByPage {
        /// The latter's number.
        hot: usize,
    },
    /// All pages are tracked, by dirty bits.
    ByDirtyBits,
    /// It is copied whole: tracking would cost more.
    Whole,
}

/// A change of an allocation's treatment, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// From now on.
    pub to: Treatment,
    /// Nanoseconds that a flush like this one costs if its pages are tracked, but for the hot ones.
    pub by_page: u64,
    /// .. if they are tracked by dirty bits, where that can be had,
    pub by_dirty_bits: Option<u64>,
    /// .. and if all of it is copied.
    pub whole: u64,
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, by_page, by_dirty_bits, whole } = self;
        match to {
            Treatment::Whole => f.write_str("copied whole from now on")?,
            Treatment::ByPage { hot } => write!(f, "tracked from now on, but for {hot} hot pages")?,
            Treatment::ByDirtyBits => f.write_str("tracked by dirty bits from now on")?,
            Treatment::Tiny => f.write_str("copied always")?,
        }
        write!(f, ": a flush costs {by_page} ns if tracked, ")?;
        if let Some(by_dirty_bits) = by_dirty_bits {
            write!(f, "{by_dirty_bits} ns by dirty bits, ")?;
        }
        write!(f, "{whole} ns if copied whole")
    }
}

impl Mode {
    /// From the next flush on.
    fn asked(method: Method, is_trial: bool) -> Self {
        Self::Asked { method, regret: 0.0, is_settled: false, is_trial }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Tiny => Kind::Tiny,
            Self::Asked { method, .. } => Kind::Asked(*method),
            Self::Whole { .. } => Kind::Whole,
        }
    }
}

/// What a flush costs in each way, in nanoseconds.
struct Prices {
    by_page: f32,
    by_dirty_bits: Option<f32>,
    whole: f32,
}

impl Prices {
    fn of(&self, kind: Kind) -> f32 {
        match kind {
            Kind::Asked(Method::Mkwrite) => self.by_page,
            Kind::Asked(Method::DirtyBits) => self.by_dirty_bits.unwrap_or(f32::INFINITY),
            Kind::Whole | Kind::Tiny => self.whole,
        }
    }

    /// The cheapest way but one, and its price.
    fn cheapest_but(&self, present: Kind) -> (Kind, f32) {
        let others = [Kind::Whole, Kind::Asked(Method::DirtyBits), Kind::Asked(Method::Mkwrite)];
        let others = others.into_iter().filter(|kind| *kind != present).map(|kind| (kind, self.of(kind)));
        others.min_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or((Kind::Whole, self.whole))
    }
}

impl Test {
    /// None yet.
    fn new() -> Self {
        Self {
            hot: 0,
            credit: 0.0,
            share: FIRST_TEST,
            hand: 0,
            slice: 0..0,
            tested: 0,
            passed: 0,
            is_over: false,
            is_urgent: false,
        }
    }
}

impl Policy {
    /// For an allocation of `pages` pages: all tracked, if that can ever pay, and by faults at first. `has_methods` tells
    /// whether that can change.
    pub(crate) fn new(pages: usize, costs: Costs, has_methods: bool) -> Self {
        let is_tiny = costs.copy(pages) <= costs.ask(pages);
        let mode = if is_tiny { Mode::Tiny } else { Mode::asked(Method::Mkwrite, false) };
        let has_methods = has_methods && costs.dirty_bit.is_some();
        Self {
            pages,
            costs,
            mode,
            said: mode.kind(),
            method: has_methods.then_some(Method::Mkwrite),
            known: PageSet::new(if has_methods { pages } else { 0 }),
            known_count: 0,
            hot: PageSet::new(pages),
            recent: PageSet::new(pages),
            test: Test::new(),
            interval: INTERVALS.start,
            flush: Flush::default(),
        }
    }

    pub(crate) fn costs(&mut self) -> &mut Costs {
        &mut self.costs
    }

    pub(crate) fn treatment(&self) -> Treatment {
        match self.mode.kind() {
            Kind::Tiny => Treatment::Tiny,
            Kind::Asked(Method::Mkwrite) => Treatment::ByPage { hot: self.test.hot },
            Kind::Asked(Method::DirtyBits) => Treatment::ByDirtyBits,
            Kind::Whole => Treatment::Whole,
        }
    }

    /// Starts a flush of `pages`: what to do with which of them, in order. Returns the method that the tracker is to go by
    /// from before that on, if it is another than before.
    pub(crate) fn plan(
        &mut self,
        pages: Range<usize>,
        plans: &mut Vec<(Range<usize>, Plan)>,
    ) -> Option<Method> {
        plans.clear();
        self.flush = Flush { all: pages.len(), ..Flush::default() };
        match &mut self.mode {
            Mode::Tiny => plans.push((pages, Plan::Copy)),
            Mode::Whole { left: 0 } => {
                let method = self.method.map_or(Method::Mkwrite, |_| Method::DirtyBits);
                self.mode = Mode::asked(method, true);
                plans.push((pages, Plan::Arm));
            }
            Mode::Whole { left } => {
                *left -= 1;
                plans.push((pages, Plan::Copy));
            }
            Mode::Asked { .. } if self.test.hot == 0 => plans.push((pages, Plan::Collect)),
            Mode::Asked { .. } => self.plan_by_page(pages, plans),
        }
        for (pages, plan) in &*plans {
            match plan {
                Plan::Collect => self.flush.calls += 1,
                Plan::Copy | Plan::Arm => self.flush.copied += pages.len(),
            }
        }
        match (self.mode, &mut self.method) {
            (Mode::Asked { method, .. }, Some(known)) if *known != method => {
                *known = method;
                Some(method)
            }
            _ => None,
        }
    }

    fn plan_by_page(&mut self, pages: Range<usize>, plans: &mut Vec<(Range<usize>, Plan)>) {
        let slice = self.next_slice(&pages);
        // So few pages between hot ones are cheaper to copy along than to ask about. They stay watched.
        let gap = self.costs.worth_of_a_call();
        let mut push = |pages: Range<usize>, plan| match plans.last_mut() {
            Some((last, same)) if *same == plan => last.end = pages.end,
            _ if !pages.is_empty() => plans.push((pages, plan)),
            _ => {}
        };
        for (run, is_hot) in self.hot.runs(pages.clone()) {
            if !is_hot {
                let is_between = run.start > pages.start && run.end < pages.end;
                push(run.clone(), if is_between && run.len() <= gap { Plan::Copy } else { Plan::Collect });
                continue;
            }
            let (from, to) = (slice.start.clamp(run.start, run.end), slice.end.clamp(run.start, run.end));
            push(run.start..from, Plan::Copy);
            push(from..to, Plan::Arm);
            push(to..run.end, Plan::Copy);
        }
        for (armed, _) in plans.iter().filter(|(_, plan)| *plan == Plan::Arm) {
            self.test.hot -= armed.len();
            self.hot.remove(armed.clone());
            // Once more, and they are hot again.
            self.recent.insert(armed.clone());
        }
    }

    /// The pages among which hot ones are put to the test at this flush, if it is time to.
    fn next_slice(&mut self, pages: &Range<usize>) -> Range<usize> {
        let test = &mut self.test;
        let size = if test.is_urgent { test.hot } else { (test.hot / 16).max(SLICE) };
        let price = test.share * (self.costs.track(size.min(test.hot)) + self.costs.ask(0));
        if test.credit < price && !test.is_urgent {
            return 0..0;
        }
        let start = if pages.contains(&test.hand) { test.hand } else { pages.start };
        let (mut end, mut count) = (start, 0);
        for (run, is_hot) in self.hot.runs(start..pages.end) {
            end = run.end;
            if is_hot {
                end = end.min(run.start + (size - count));
                count += end - run.start;
                if count == size {
                    break;
                }
            }
        }
        test.hand = end;
        if count > 0 {
            (test.credit, test.is_urgent) = (0.0, false);
            (self.flush.slice, self.flush.tested) = (start..end, count);
        }
        start..end
    }

    /// The tracker was asked about `asked`, and found `written` there (ascending, in pages).
    pub(crate) fn observe(
        &mut self,
        asked: Range<usize>,
        written: impl Iterator<Item = Range<usize>> + Clone,
    ) {
        self.flush.asked += asked.len();
        let slice = &self.test.slice;
        self.test.is_over |= slice.start < asked.end && asked.start < slice.end;
        let makes_hot = matches!(self.mode, Mode::Asked { method: Method::Mkwrite, .. });
        for pages in written.clone() {
            if self.method.is_some() {
                let fresh = self.known.runs(pages.clone()).filter(|(_, is_known)| !is_known);
                self.known_count += fresh.map(|(part, _)| part.len()).sum::<usize>();
                self.known.insert(pages.clone());
            }
            for (part, is_recent) in self.recent.runs(pages) {
                if !is_recent {
                    self.flush.fresh += part.len();
                    continue;
                }
                self.flush.again += part.len();
                self.test.passed += slice.end.min(part.end).saturating_sub(slice.start.max(part.start));
                if makes_hot {
                    self.hot.insert(part);
                }
            }
        }
        self.recent.remove(asked);
        for pages in written {
            self.recent.insert(pages);
        }
    }

    /// Ends a flush: whether to go on like this, or what to do from now on.
    pub(crate) fn conclude(&mut self) -> Option<Switch> {
        let Mode::Asked { method, regret, is_settled, is_trial } = self.mode else { return None };
        if method == Method::Mkwrite {
            self.test.hot += self.flush.again;
            self.test.credit += BUDGET * self.costs.copy(self.flush.copied);
            self.judge_test();
        }
        if self.flush.asked == 0 {
            return None;
        }
        if !is_settled {
            self.mode = Mode::Asked { method, regret, is_settled: true, is_trial };
            return None;
        }
        let prices = self.prices();
        let price = prices.of(Kind::Asked(method));
        let (cheapest, other) = prices.cheapest_but(Kind::Asked(method));
        let regret = (regret + price - other).max(-MEMORY * other);
        let patience = if is_trial { 0.0 } else { prices.whole };
        self.mode = Mode::Asked { method, regret, is_settled, is_trial: false };
        if regret > patience {
            self.change(cheapest, 2.0 * (price - other) / (BUDGET * prices.whole), is_trial);
        } else if is_trial {
            self.interval = INTERVALS.start;
        }
        // A trial that confirms what was before is no news.
        let kind = self.mode.kind();
        if std::mem::replace(&mut self.said, kind) == kind {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a conversion that saturates"
        )]
        let in_nanoseconds = |cost: f32| cost as u64;
        Some(Switch {
            to: self.treatment(),
            by_page: in_nanoseconds(prices.by_page),
            by_dirty_bits: prices.by_dirty_bits.map(in_nanoseconds),
            whole: in_nanoseconds(prices.whole),
        })
    }

    /// What the present flush cost, or would have.
    fn prices(&self) -> Prices {
        let Flush { all, asked, calls, copied, again, fresh, .. } = self.flush;
        // Of those that were not asked about, at most as many were written as were copied.
        let found = self.costs.copy(fresh + again + copied);
        let looked_at = self.known_count * all / self.pages.max(1);
        let by_dirty_bits = self.method.and_then(|_| self.costs.look_at_dirty_bits(looked_at));
        Prices {
            // Pages that have just become hot will not fault again.
            by_page: self.costs.ask_in(calls, asked) + self.costs.track(fresh) + found,
            by_dirty_bits: by_dirty_bits.map(|look| look + found),
            whole: self.costs.copy(all),
        }
    }

    /// Goes on in another way: copying whole, in the end for as long as `affordable` flushes between trials.
    fn change(&mut self, to: Kind, affordable: f32, is_trial: bool) {
        match to {
            Kind::Whole => return self.copy_whole(affordable, is_trial),
            Kind::Asked(method) => self.mode = Mode::asked(method, false),
            Kind::Tiny => self.mode = Mode::Tiny,
        }
        self.interval = INTERVALS.start;
        self.forget();
    }

    /// Copies everything from now on, in the end for as long as `affordable` flushes between trials. A trial is two
    /// flushes: only the second one tells which pages are written each time.
    fn copy_whole(&mut self, affordable: f32, is_trial: bool) {
        if is_trial {
            // Saturates.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped right after"
            )]
            let affordable = affordable as u32;
            self.interval = (self.interval * 2).min(affordable).clamp(INTERVALS.start, INTERVALS.end);
        }
        self.mode = Mode::Whole { left: self.interval };
        self.forget();
    }

    /// What is hot, and what was written.
    fn forget(&mut self) {
        self.hot.remove(0..self.pages);
        self.recent.remove(0..self.pages);
        self.test = Test::new();
    }

    /// Ends a test that is over, and takes note of one that this flush began.
    fn judge_test(&mut self) {
        let test = &mut self.test;
        if test.is_over {
            test.is_urgent = test.passed * 2 < test.tested;
            test.share = if test.is_urgent { FIRST_TEST } else { (test.share * 2.0).min(1.0) };
            (test.slice, test.is_over) = (0..0, false);
        }
        if self.flush.tested > 0 {
            (test.slice, test.tested, test.passed) = (self.flush.slice.clone(), self.flush.tested, 0);
        }
    }
}

#[cfg(test)]
mod tests;
