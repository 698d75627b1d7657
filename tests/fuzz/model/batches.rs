//! Batches: what holds them back, what they own while they may run, and how the host learns that they are done.

use super::{Model, Team};
use crate::effects::{Effect, resolve};
use crate::program::{By, Command, Gate, Part};
use crate::spans::Spans;

pub(crate) struct Batch {
    pub(crate) id: u32,
    effects: Vec<Effect>,
    pub(crate) reads: Spans,
    pub(crate) writes: Spans,
    /// Command buffers it keeps pending, secondary ones too.
    pub(crate) lists: Vec<usize>,
    pub(crate) sets: Vec<usize>,
    pub(crate) memories: Vec<usize>,
    pub(crate) is_open: bool,
    /// Whether nothing holds it back: it may run at any time.
    pub(crate) has_run: bool,
    /// Whether the host knows that its commands are done.
    pub(crate) is_visible: bool,
    /// Whether the host knows that it is done altogether.
    pub(crate) is_retired: bool,
    has_fence: bool,
    signals: bool,
    sets_event: bool,
}

impl Batch {
    /// Whether the host can learn by this way that it is done.
    pub(crate) fn tells(&self, by: By) -> bool {
        match by {
            By::Fence | By::FenceStatus => self.has_fence,
            By::Timeline | By::Counter => self.signals,
            By::Event => self.sets_event,
        }
    }
}

/// Mesa makes one submission of batches of one vkQueueSubmit between which nothing is signalled, with the waits of all of
/// them in front (`vk_queue_submits_merge`): a batch's event is then not set before what a later one waits for.
fn forget_merged_events(batches: &mut [Batch], parts: &[Part]) {
    let mut is_held = false;
    for (batch, part) in batches.iter_mut().zip(parts).rev() {
        is_held &= !part.signals;
        batch.sets_event &= !is_held;
        is_held |= part.gate == Some(Gate::Timeline);
    }
}

impl Model<'_> {
    /// Batches that may be at work.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(|batch| batch.has_run && !batch.is_visible)
    }

    pub(crate) fn batch(&self, id: u32) -> Option<&Batch> {
        self.batches.iter().find(|batch| batch.id == id)
    }

    pub(super) fn submit(&mut self, parts: &[Part], has_fence: bool) -> bool {
        let Some(mut batches) = parts.iter().map(|part| self.batch_of(part)).collect::<Option<Vec<Batch>>>()
        else {
            return false;
        };
        let Some(last) = batches.last_mut() else { return false };
        last.has_fence = has_fence;
        forget_merged_events(&mut batches, parts);
        let mut once: Vec<usize> = parts.iter().flat_map(|part| part.lists.iter().copied()).collect();
        once.retain(|&list| !self.world.lists[list].is_simultaneous);
        let is_pending =
            |list| self.batches.iter().any(|batch| !batch.is_retired && batch.lists.contains(list));
        let is_double = (1..once.len()).any(|at| once[..at].contains(&once[at]));
        if is_double || once.iter().any(is_pending) {
            return false;
        }
        let was_open = self.batches.iter().all(|batch| batch.is_open);
        let mut runs = batches.iter().take_while(|batch| was_open && batch.is_open);
        if runs.any(|batch| self.meets_team(batch)) {
            return false;
        }
        let lists = parts.iter().flat_map(|part| &part.lists);
        lists.for_each(|&list| self.seal(list));
        self.batches.append(&mut batches);
        self.run_what_is_free();
        true
    }

    /// The batch of a part, with effects by what its descriptors hold now; `None` if it is not valid.
    fn batch_of(&self, part: &Part) -> Option<Batch> {
        let is_valid = |&list: &usize| {
            !self.world.lists[list].is_secondary && (self.is_alive(list) || self.can_seal(list))
        };
        if self.batch(part.batch).is_some() || !part.lists.iter().all(is_valid) {
            return None;
        }
        let executed = part.lists.iter().flat_map(|&list| self.executed_by(list));
        let lists: Vec<usize> = part.lists.iter().copied().chain(executed).collect();
        let commands = || part.lists.iter().flat_map(|&list| &self.lists[list].commands);
        let resolved = commands().map(|command| resolve(self.world, &self.sets, &self.lists, command));
        let effects: Vec<Effect> = resolved.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
        let (mut sets, mut buffers) = (Vec::new(), Vec::new());
        for command in lists.iter().flat_map(|&list| &self.lists[list].commands) {
            match *command {
                Command::Copy { from, to, .. } | Command::Image { from, to, .. } => {
                    buffers.extend([from, to])
                }
                Command::Fill { to, .. } | Command::Update { to, .. } => buffers.push(to),
                Command::Dispatch { set, .. } => sets.push(set),
                Command::Execute { .. } => {}
            }
        }
        let bound = sets.iter().filter_map(|&set| self.sets[set].bound).flatten();
        buffers.extend(bound.map(|binding| binding.buffer));
        Some(Batch {
            id: part.batch,
            reads: effects.iter().flat_map(|effect| effect.reads().iter().collect::<Vec<_>>()).collect(),
            writes: effects.iter().flat_map(|effect| effect.writes().iter().collect::<Vec<_>>()).collect(),
            effects,
            lists,
            sets,
            memories: buffers.iter().map(|&buffer| self.world.buffers[buffer].memory).collect(),
            is_open: part.gate.is_none(),
            has_run: false,
            is_visible: false,
            is_retired: false,
            has_fence: false,
            signals: part.signals,
            sets_event: part.sets_event,
        })
    }

    fn meets_team(&self, batch: &Batch) -> bool {
        let meets = |team: &Team| team.spans.overlaps(&batch.reads) || team.spans.overlaps(&batch.writes);
        self.teams.iter().any(meets)
    }

    /// Runs batches up to the first that is held back.
    fn run_what_is_free(&mut self) {
        for batch in self.batches.iter_mut().take_while(|batch| batch.is_open) {
            if !std::mem::replace(&mut batch.has_run, true) {
                batch.effects.iter().for_each(|effect| effect.apply(&mut self.bytes));
            }
        }
    }

    pub(super) fn release(&mut self, id: u32) -> bool {
        let Some(at) = self.batches.iter().position(|batch| batch.id == id && !batch.is_open) else {
            return false;
        };
        let mut runs = self.batches.iter().take_while(|batch| batch.is_open || batch.id == id);
        if runs.any(|batch| !batch.has_run && self.meets_team(batch)) {
            return false;
        }
        self.batches[at].is_open = true;
        self.run_what_is_free();
        true
    }

    pub(super) fn wait(&mut self, id: u32, by: By) -> bool {
        let tells = |batch: &Batch| batch.id == id && batch.has_run && batch.tells(by);
        let Some(at) = self.batches.iter().position(tells) else { return false };
        self.learn(at, by != By::Event);
        true
    }

    pub(super) fn idle(&mut self) -> bool {
        let can_end = self.batches.iter().all(|batch| batch.has_run);
        if can_end && let Some(last) = self.batches.len().checked_sub(1) {
            self.learn(last, true);
        }
        can_end
    }

    /// The commands of all batches up to `last` are done, and so are the batches themselves if they are `retired`.
    fn learn(&mut self, last: usize, retired: bool) {
        let batches = &mut self.batches[..=last];
        let news = batches.iter().filter(|batch| !batch.is_visible).flat_map(|batch| batch.writes.iter());
        self.news = news.collect();
        for batch in batches {
            batch.is_visible = true;
            batch.is_retired |= retired;
        }
    }
}
