//! Who may import whom, and that files stay readable.
