//! [`user_memory`](crate::user_memory): there is none.

use crate::Span;
use std::fmt;
use std::io;

/// Never there.
#[derive(Debug)]
pub enum UserMemory {}

pub(crate) type Access = UserMemory;

/// Of what is never there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {}

pub(crate) const BLOCK: usize = 2 * crate::model::PAGE;

impl UserMemory {
    pub(crate) fn span(&self) -> Span {
        match *self {}
    }

    pub(crate) fn is_watched(&self) -> bool {
        match *self {}
    }

    pub(crate) fn reached_at(&self) -> usize {
        match *self {}
    }

    pub(crate) fn make_alias(&mut self) -> bool {
        match *self {}
    }

    pub(crate) fn alias(&self) -> Option<*mut u8> {
        match *self {}
    }

    pub(crate) fn access(&self) -> Option<&Access> {
        match *self {}
    }

    pub(crate) fn verify(&self, _: &Span) -> Result<(), Loss> {
        match *self {}
    }

    pub(crate) fn verify_before_scan(&self, _: &Span) -> Result<(), Loss> {
        match *self {}
    }

    pub(crate) fn resume(&self) -> bool {
        match *self {}
    }

    pub(crate) fn read<T>(&self, _: usize, _: usize, _: impl FnOnce(*const u8) -> T) -> io::Result<T> {
        match *self {}
    }

    pub(crate) fn store_differences(&self, _: usize, _: &[u8], _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}
