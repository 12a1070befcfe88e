//! tree
pub(super) struct Tree;
