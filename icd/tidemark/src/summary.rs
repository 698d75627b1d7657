//! What Tidemark did for the processes of an application, for people and for scripts.

use crate::json;
use crate::units::{bytes, count, nanoseconds};
use std::iter::Sum;
use tidemark_winsys::page_size;
use tidemark_winsys::telemetry::{Counter, Snapshot};
use vulkan_tidemark::config::Mode;

/// A process that used Tidemark.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) application: String,
    pub(crate) device: String,
    pub(crate) tracker: String,
    pub(crate) traffic: Traffic,
}

impl From<Snapshot> for Process {
    fn from(snapshot: Snapshot) -> Self {
        let traffic = Traffic::of(|counter| snapshot.get(counter));
        let Snapshot { pid, application, device, tracker, .. } = snapshot;
        Self { pid, application, device, tracker, traffic }
    }
}

/// The value of each counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic([u64; Counter::ALL.len()]);

impl Traffic {
    pub(crate) fn of(value: impl Fn(Counter) -> u64) -> Self {
        Self(std::array::from_fn(|index| value(Counter::ALL[index])))
    }

    fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    fn nothing_emulated(&self) -> bool {
        self.get(Counter::Allocations) == 0
    }
}

impl Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, next| {
            Self::of(|counter| sum.get(counter).saturating_add(next.get(counter)))
        })
    }
}

/// The summary for people. `mode` is the one that they ran in: it tells why there may be nothing to see.
pub(crate) fn text(processes: &[Process], mode: Mode) -> String {
    if processes.is_empty() {
        return NOBODY.into();
    }
    let mut text = String::from("\ntidemark: coherence traffic\n");
    for process in processes {
        let Process { pid, application, device, tracker, traffic } = process;
        text.push_str(&format!("\n{application} (process {pid})\n"));
        row(&mut text, "device", device, "");
        if traffic.nothing_emulated() {
            row(&mut text, "allocations", "none emulated", "");
        } else {
            row(&mut text, "tracker", tracker, "");
            rows(&mut text, traffic);
        }
    }
    let total: Traffic = processes.iter().map(|process| process.traffic).sum();
    if total.nothing_emulated() {
        let had_none = processes.iter().any(|process| process.tracker != NO_TRACKER);
        text.push_str(if had_none { NO_ALLOCATION } else { nothing_to_emulate(mode) });
    } else if processes.len() > 1 {
        text.push_str(&format!("\nall {} processes\n", processes.len()));
        rows(&mut text, &total);
    }
    text
}

/// What the driver calls the tracker of a device that has nothing to track.
const NO_TRACKER: &str = "none";

const NOBODY: &str = "
tidemark: no process used Tidemark: none created a Vulkan device on it.
If one should have: `tidemark doctor` tells whether Tidemark works here, `--log info` what it was asked for.
";

const NO_ALLOCATION: &str = "
Nothing was emulated: nothing was allocated that could be mapped.
";

/// Why nothing was there to be emulated, and what to do about it.
fn nothing_to_emulate(mode: Mode) -> &'static str {
    match mode {
        Mode::Never => {
            "
Nothing was emulated: the mode is \"never\".
`tidemark run --mode auto` emulates what the backing driver lacks.
"
        }
        Mode::Auto | Mode::Always => {
            "
Nothing was emulated: the backing driver's memory is coherent already.
`tidemark run --mode always` treats it as if it were not.
"
        }
    }
}

fn rows(text: &mut String, traffic: &Traffic) {
    let get = |counter| traffic.get(counter);
    let pages = |counter| {
        let pages = get(counter);
        (counter, count(pages), bytes(pages.saturating_mul(u64::try_from(page_size()).unwrap_or(u64::MAX))))
    };
    let lines = [
        (Counter::Allocations, count(get(Counter::Allocations)), bytes(get(Counter::AllocatedBytes))),
        (Counter::Maps, count(get(Counter::Maps)), String::new()),
        (Counter::Submits, count(get(Counter::Submits)), String::new()),
        (Counter::Waits, count(get(Counter::Waits)), String::new()),
        pages(Counter::PagesWritten),
        pages(Counter::PagesUntracked),
        (Counter::Switches, count(get(Counter::Switches)), String::new()),
        (Counter::BytesFlushed, bytes(get(Counter::BytesFlushed)), spent(get(Counter::FlushNanoseconds))),
        (
            Counter::BytesReadBack,
            bytes(get(Counter::BytesReadBack)),
            spent(get(Counter::ReadbackNanoseconds)),
        ),
        pages(Counter::PagesFetched),
    ];
    for (counter, value, more) in lines {
        row(text, counter.label(), &value, &more);
    }
}

fn spent(time: u64) -> String {
    format!("in {}", nanoseconds(time))
}

fn row(text: &mut String, label: &str, value: &str, more: &str) {
    let line = format!("  {label:<18}  {value:<12}  {more}");
    text.push_str(line.trim_end());
    text.push('\n');
}

/// The summary for scripts: a JSON object per process and line, with every counter under its own name.
pub(crate) fn json_lines(processes: &[Process]) -> String {
    processes.iter().map(json_line).collect()
}

fn json_line(process: &Process) -> String {
    let Process { pid, application, device, tracker, traffic } = process;
    let mut line = format!(
        r#"{{"pid":{pid},"application":{},"device":{},"tracker":{}"#,
        json::quote(application),
        json::quote(device),
        json::quote(tracker)
    );
    for &counter in Counter::ALL {
        let name = counter.label().replace(' ', "_");
        line.push_str(&format!(",{}:{}", json::quote(&name), traffic.get(counter)));
    }
    line.push_str("}\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, values: &[(Counter, u64)]) -> Process {
        let value = |counter| values.iter().find(|(name, _)| *name == counter).map_or(0, |(_, value)| *value);
        Process {
            pid,
            application: "vkcube".into(),
            device: "Tidemark (a device)".into(),
            tracker: "write-protect".into(),
            traffic: Traffic::of(value),
        }
    }

    fn busy(pid: u32) -> Process {
        process(
            pid,
            &[
                (Counter::Allocations, 3),
                (Counter::AllocatedBytes, 3 << 20),
                (Counter::Maps, 3),
                (Counter::Submits, 1200),
                (Counter::Waits, 1201),
                (Counter::PagesWritten, 1200),
                (Counter::BytesFlushed, 76_800),
                (Counter::BytesReadBack, 10),
                (Counter::FlushNanoseconds, 2_345_678),
                (Counter::ReadbackNanoseconds, 900),
            ],
        )
    }

    #[test]
    fn one_process_is_one_aligned_block() {
        let pages = bytes(1200 * page_size() as u64);
        let expected = format!(
            "
tidemark: coherence traffic

vkcube (process 42)
  device              Tidemark (a device)
  tracker             write-protect
  allocations         3             3.0 MiB
  maps                3
  submits             1,200
  waits               1,201
  pages found dirty   1,200         {pages}
  pages untracked     0             0 B
  policy switches     0
  bytes flushed       75.0 KiB      in 2.3 ms
  bytes read back     10 B          in 900 ns
  pages fetched       0             0 B
"
        );
        assert_eq!(text(&[busy(42)], Mode::Auto), expected);
    }

    #[test]
    fn several_processes_have_a_total() {
        let text = text(&[busy(1), busy(2), process(3, &[])], Mode::Always);
        let (_, total) = text.split_once("\nall 3 processes\n").expect("no total");
        assert!(total.contains("  submits             2,400\n"), "{text}");
        assert!(text.contains(
            "(process 3)\n  device              Tidemark (a device)\n  allocations         none emulated\n"
        ));
        assert!(!text.contains("Nothing was emulated"), "{text}");
    }

    #[test]
    fn when_there_is_nothing_to_see_it_says_why() {
        assert!(text(&[], Mode::Auto).contains("no process used Tidemark"));
        let no_allocation = process(1, &[]);
        let no_tracker = Process { tracker: NO_TRACKER.into(), ..no_allocation.clone() };
        assert!(text(&[no_tracker.clone(), no_allocation], Mode::Auto).ends_with(NO_ALLOCATION));
        let nothing = [no_tracker];
        assert!(text(&nothing, Mode::Auto).contains("`tidemark run --mode always`"));
        assert!(text(&nothing, Mode::Never).contains("`tidemark run --mode auto`"));
    }

    #[test]
    fn scripts_get_every_counter() {
        let lines = json_lines(&[busy(1), process(2, &[])]);
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[0],
            r#"{"pid":1,"application":"vkcube","device":"Tidemark (a device)","tracker":"write-protect","#
                .to_owned()
                + r#""allocations":3,"allocated_bytes":3145728,"maps":3,"submits":1200,"waits":1201,"#
                + r#""pages_found_dirty":1200,"pages_untracked":0,"policy_switches":0,"bytes_flushed":76800,"bytes_read_back":10,"#
                + r#""pages_fetched":0,"flush_ns":2345678,"readback_ns":900}"#
        );
    }
}
