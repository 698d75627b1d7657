//! Random programs of host writes, device writes and sync points, by every tracker, against a byte model: no byte that
//! either side wrote is lost, and no other changes. `PROPTEST_CASES` asks for more programs.

#![allow(clippy::expect_used, reason = "a test")]

mod machine;
mod model;
mod program;

use machine::Machine;
use program::Program;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use std::io;
use std::sync::{Arc, LazyLock};
use tidemark_winsys::drm::Objects;
use tidemark_winsys::tracker::{Compare, CopyAll, Method, Tracker, WriteProtect};
use tidemark_winsys::{Arena, Costs, Lending, Readback, Span, Trust};

/// A way to find what the host wrote.
struct Contender {
    name: &'static str,
    arena: Arena,
    costs: Option<Costs>,
    /// Whether it looks at no page that the host did not write.
    is_exact: bool,
    /// Whether the CPU does not reach the device memory.
    is_copied: bool,
    /// Where the host view are pages of the test's own.
    lent: Option<(Arc<Lending>, Trust)>,
}

fn write_protect() -> Arc<dyn Tracker> {
    Arc::new(WriteProtect::new().expect("this kernel has no write-protect tracking"))
}

/// Every contender. They last from case to case, as an application's do from allocation to allocation.
static CONTENDERS: LazyLock<Vec<Contender>> = LazyLock::new(|| {
    let contender = |name, arena, costs, is_exact| Contender {
        name,
        arena,
        costs,
        is_exact,
        is_copied: false,
        lent: None,
    };
    let lent = |trust, contender: Contender| {
        let lending = Lending::new(contender.arena.tracker().clone());
        Contender { lent: Some((lending, trust)), ..contender }
    };
    let copied = |contender| Contender { is_copied: true, ..contender };
    let lazy = || Arena::new(write_protect()).reading_back(Readback::Lazy);
    // By the first, pages that are written each time are copied unasked; by the second, whole allocations.
    let by_page = Costs { call: 50.0, look: 0.0, first: 0.0, fault: 0.0, dirty_bit: None, copy: 500.0 };
    let whole = Costs { fault: 50_000.0, ..by_page };
    let mut contenders = vec![
        contender("copy-all", Arena::new(Arc::new(CopyAll)), None, false),
        contender("compare", Arena::new(Arc::new(Compare)), None, false),
        contender("write-protect", Arena::new(write_protect()), None, true),
        contender("write-protect, lazy", lazy(), None, true),
        contender("adaptive by page", Arena::new(write_protect()), Some(by_page), false),
        contender("adaptive whole, lazy", lazy(), Some(whole), false),
        copied(contender("copied, compare", Arena::new(Arc::new(Compare)), None, false)),
        copied(contender("copied, adaptive by page", lazy(), Some(by_page), false)),
        lent(Trust::Watched, contender("lent, adaptive by page", lazy(), Some(by_page), false)),
        lent(Trust::Watched, copied(contender("lent, copied", Arena::new(Arc::new(Compare)), None, false))),
        lent(Trust::Blind, contender("lent blindly", Arena::new(write_protect()), None, false)),
    ];
    // Where the kernel driver is there, as in tests/vm.
    let objects = |method| Some(Arena::new(write_protect()).of_objects(Objects::open(method).ok()?));
    let faults = Costs { dirty_bit: Some(400.0), ..by_page };
    let dirty_bits = Costs { fault: 400.0, dirty_bit: Some(0.0), ..by_page };
    contenders.extend(
        [
            ("mkwrite", Some(Method::Mkwrite), None, true),
            ("dirty bits", Some(Method::DirtyBits), None, true),
            ("adaptive on objects, faults", None, Some(faults), false),
            ("adaptive on objects, dirty bits", None, Some(dirty_bits), false),
        ]
        .into_iter()
        .filter_map(|(name, method, costs, is_exact)| {
            Some(contender(name, objects(method)?, costs, is_exact))
        }),
    );
    contenders
});

/// Runs `program` and holds each sync point against the model.
fn check(contender: &Contender, program: &Program) -> Result<(), TestCaseError> {
    let mut machine = Machine::new(contender, program);
    machine
        .look()
        .and_then(|()| program.operations.iter().try_for_each(|operation| machine.perform(operation)))
        .and_then(|()| machine.settle())
        .map_err(|reason| TestCaseError::fail(format!("{}: {reason}", contender.name)))
}

proptest! {
    #[test]
    fn no_byte_is_lost_and_no_other_changes(program in Program::any()) {
        for contender in &*CONTENDERS {
            check(contender, &program)?;
        }
    }
}

/// Keeps the last of several regions to itself, as one would that does not scan to the end.
struct Forgetful(Arc<dyn Tracker>);

impl Tracker for Forgetful {
    fn name(&self) -> &'static str {
        "forgetful"
    }

    fn attach(&self, region: Span) -> io::Result<()> {
        self.0.attach(region)
    }

    fn arm(&self, span: Span) -> io::Result<()> {
        self.0.arm(span)
    }

    fn collect(&self, span: Span, written: &mut Vec<Span>) -> io::Result<()> {
        self.0.collect(span, written)?;
        if written.len() > 1 {
            written.pop();
        }
        Ok(())
    }
}

#[test]
fn a_tracker_that_loses_a_report_is_found_out_by_a_small_program() {
    let arena = Arena::new(Arc::new(Forgetful(write_protect())));
    let contender =
        Contender { name: "forgetful", arena, costs: None, is_exact: true, is_copied: false, lent: None };
    // To take one operation away need not be a way to the smallest program: the smallest of a few tries is.
    let programs = (0..5).map(|_| {
        let config = Config { failure_persistence: None, max_shrink_iters: 100_000, ..Config::default() };
        let outcome = TestRunner::new(config).run(&Program::any(), |program| check(&contender, &program));
        let Err(TestError::Fail(_, program)) = outcome else { panic!("not found out: {outcome:?}") };
        program
    });
    let program = programs.min_by_key(|program| program.operations.len()).expect("five programs");
    // Two pages that do not touch, and perhaps a flush.
    assert!(program.operations.len() <= 3, "{program:?}");
}
