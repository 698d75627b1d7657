//! Faults on pages of shared memory that are not mapped: asked for, read, and answered.

use super::{Call, range_of, register, register_write_protect};
use crate::Span;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use tidemark_kmd_uapi::userfaultfd::{self, Message};

/// Asks for the faults of a region that is under asynchronous write protection, which stays: those on pages that exist
/// (`MINOR`) and, since nobody knows which do, those on pages that do not (`MISSING`).
pub(crate) fn hold_back(uffd: impl AsFd, region: Span) -> io::Result<()> {
    let faults = userfaultfd::REGISTER_MODE_MINOR | userfaultfd::REGISTER_MODE_MISSING;
    register(uffd, region, userfaultfd::REGISTER_MODE_WP | faults)
}

/// Leaves asynchronous write protection alone, with every page counting as written. Whoever waits for a page tries again.
pub(crate) fn let_go(uffd: impl AsFd, region: Span) -> io::Result<()> {
    // To register fewer modes takes none away.
    super::unregister(&uffd, region.clone())?;
    register_write_protect(uffd, region)
}

/// Maps pages that exist, from the first of `span` on, and wakes those who wait for them: write-protected, or so that
/// they count as written. Returns the bytes mapped; what stopped it is told by the next call, from there.
pub(crate) fn map(uffd: impl AsFd, span: Span, protect: bool) -> Result<usize, Errno> {
    let mode = if protect { userfaultfd::CONTINUE_MODE_WP } else { 0 };
    let mut argument = userfaultfd::Continue { range: range_of(span), mode, mapped: 0 };
    // SAFETY: the argument is a live `struct uffdio_continue`; a page that is mapped shows the bytes it has.
    let outcome =
        unsafe { rustix::ioctl::ioctl(uffd, Call::<_, { userfaultfd::UFFDIO_CONTINUE }>(&mut argument)) };
    match (usize::try_from(argument.mapped), outcome) {
        // Part of it, which is EAGAIN, or all.
        (Ok(mapped), _) if mapped > 0 => Ok(mapped),
        (_, Err(error)) => Err(error),
        // All of nothing.
        (_, Ok(_)) => Ok(0),
    }
}

/// Lets those try again who wait for pages of `span`.
pub(crate) fn wake(uffd: impl AsFd, span: Span) -> io::Result<()> {
    let mut range = range_of(span);
    // SAFETY: the argument is a live `struct uffdio_range`; waking changes no memory.
    unsafe { rustix::ioctl::ioctl(uffd, Call::<_, { userfaultfd::UFFDIO_WAKE }>(&mut range)) }?;
    Ok(())
}

/// The addresses of faults that wait, as many as fit into `messages`; none if none waits.
pub(crate) fn read(uffd: impl AsFd, messages: &mut [Message]) -> impl Iterator<Item = usize> {
    let len = size_of_val(messages);
    // SAFETY: the kernel writes whole messages, which are plain numbers, into memory that is exclusively ours.
    let bytes = unsafe { std::slice::from_raw_parts_mut(messages.as_mut_ptr().cast::<u8>(), len) };
    // There is nothing to read when another thread took back what was waiting, or before anything came.
    let read = rustix::io::read(uffd, bytes).unwrap_or(0);
    let faults = messages[..read / size_of::<Message>()].iter();
    let faults = faults.filter(|message| message.event == userfaultfd::EVENT_PAGEFAULT);
    faults.filter_map(|message| usize::try_from(message.address).ok())
}
