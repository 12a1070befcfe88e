//! The board: nine cells, and who has three in a row. Knows nothing of channels.

use serde::{Deserialize, Serialize};

/// A player's sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mark {
    /// Of the one who sat down first.
    X,
    /// Of the other.
    O,
}

impl Mark {
    /// The other player's.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::X => Self::O,
            Self::O => Self::X,
        }
    }

    fn letter(self) -> char {
        match self {
            Self::X => 'X',
            Self::O => 'O',
        }
    }
}

/// Nine cells, row by row. In JSON a text such as `X.O......`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Board([Option<Mark>; 9]);

impl Board {
    const LINES: [[usize; 3]; 8] =
        [[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]];

    /// Puts a mark into a free cell; false if it is taken, or if there is no such cell.
    pub(crate) fn put(&mut self, cell: usize, mark: Mark) -> bool {
        match self.0.get_mut(cell) {
            Some(free @ None) => {
                *free = Some(mark);
                true
            }
            _ => false,
        }
    }

    /// Whether a mark has three in a row.
    pub(crate) fn has_row(&self, mark: Mark) -> bool {
        Self::LINES.iter().any(|line| line.iter().all(|cell| self.0[*cell] == Some(mark)))
    }

    /// Whether no cell is free.
    pub(crate) fn is_full(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }
}

impl From<Board> for String {
    fn from(board: Board) -> Self {
        board.0.iter().map(|cell| cell.map_or('.', Mark::letter)).collect()
    }
}

impl TryFrom<String> for Board {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let cell = |letter| match letter {
            'X' => Ok(Some(Mark::X)),
            'O' => Ok(Some(Mark::O)),
            '.' => Ok(None),
            other => Err(format!("{other:?} is no cell of a board")),
        };
        let cells = text.chars().map(cell).collect::<Result<Vec<_>, _>>()?;
        cells.try_into().map(Self).map_err(|cells: Vec<_>| format!("{} cells instead of nine", cells.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Board, Mark};

    fn board(text: &str) -> Board {
        text.to_owned().try_into().expect("a board")
    }

    #[test]
    fn rows_columns_and_diagonals_win() {
        for won in ["XXXOO....", "OX.OX..X.", "X.O.XO..X", "OOXOX.X.."] {
            assert!(board(won).has_row(Mark::X), "{won}");
        }
        assert!(!board("XXOOOXXXO").has_row(Mark::X) && board("XXOOOXXXO").is_full());
    }

    #[test]
    fn a_cell_is_taken_once_and_there_are_nine() {
        let mut board = Board::default();
        assert!(board.put(8, Mark::X));
        assert!(!board.put(8, Mark::O) && !board.put(9, Mark::O));
        assert_eq!(String::from(board), "........X");
    }

    #[test]
    fn what_is_no_board_is_refused() {
        for text in ["", "XO", "XOXOXOXOXO", "xxxxxxxxx", "…"] {
            assert!(Board::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
