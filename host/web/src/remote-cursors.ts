// Cursors and selections of others, with their names, in the editor. Owns the decorations, and tells the others where the own cursor is. The
// library's own one sets style attributes, which a strict policy refuses; the awareness fields are the same, so both understand each other.

import { Annotation, RangeSet, type Range } from '@codemirror/state';
import { Decoration, EditorView, ViewPlugin, WidgetType, type DecorationSet, type ViewUpdate } from '@codemirror/view';
import type { Awareness } from 'y-protocols/awareness';
import * as Y from 'yjs';

import { COLOURS } from './draft-session.js';

/** Others moved: nothing else changed. */
const moved = Annotation.define<true>();

class Caret extends WidgetType {
  constructor(
    private readonly name: string,
    private readonly hue: number,
  ) {
    super();
  }

  override toDOM(): HTMLElement {
    const caret = document.createElement('span');
    caret.className = `remote-caret hue-${this.hue}`;
    caret.dataset.user = this.name;
    caret.ariaHidden = 'true';
    const label = document.createElement('span');
    label.className = 'remote-name';
    label.textContent = this.name;
    // The joiners keep the line's height and the text's flow as they are.
    caret.append('\u2060', label, '\u2060');
    return caret;
  }

  override eq(other: Caret): boolean {
    return other.name === this.name && other.hue === this.hue;
  }

  override ignoreEvent(): boolean {
    return true;
  }
}

/** The extension, for the text that the editor shows. */
export function remoteCursors(text: Y.Text, awareness: Awareness) {
  const doc = text.doc as Y.Doc;

  /** Where a position that somebody sent is now; `null` if it is none in this text. */
  const place = (position: unknown): number | null => {
    try {
      const absolute = Y.createAbsolutePositionFromRelativePosition(Y.createRelativePositionFromJSON(position), doc);
      return absolute && absolute.type === text ? absolute.index : null;
    } catch {
      return null;
    }
  };

  const draw = (length: number): DecorationSet => {
    const ranges: Range<Decoration>[] = [];
    for (const [clientId, { cursor, user }] of awareness.getStates()) {
      if (clientId === doc.clientID || !cursor || typeof user?.name !== 'string') continue;
      const [anchor, head] = [place(cursor.anchor), place(cursor.head)];
      // A position may be ahead of the editor, which shows changes one after the other.
      if (anchor === null || head === null || Math.max(anchor, head) > length) continue;
      const hue = Math.max(0, COLOURS.indexOf(user.color));
      if (anchor !== head) ranges.push(Decoration.mark({ class: `remote-selection hue-${hue}` }).range(Math.min(anchor, head), Math.max(anchor, head)));
      ranges.push(Decoration.widget({ widget: new Caret(user.name.slice(0, 40), hue), side: head > anchor ? -1 : 1 }).range(head));
    }
    return Decoration.set(ranges, true);
  };

  const tell = (view: EditorView): void => {
    const state = awareness.getLocalState();
    if (!state || !view.hasFocus) return;
    const { anchor, head } = view.state.selection.main;
    const cursor = { anchor: Y.createRelativePositionFromTypeIndex(text, anchor), head: Y.createRelativePositionFromTypeIndex(text, head) };
    const known = state.cursor;
    if (known && Y.compareRelativePositions(known.anchor, cursor.anchor) && Y.compareRelativePositions(known.head, cursor.head)) return;
    awareness.setLocalStateField('cursor', cursor);
  };

  return ViewPlugin.fromClass(
    class {
      decorations: DecorationSet = RangeSet.empty;
      private readonly changed: (change: { added: number[]; updated: number[]; removed: number[] }) => void;

      constructor(view: EditorView) {
        this.decorations = draw(view.state.doc.length);
        this.changed = ({ added, updated, removed }) => {
          if ([...added, ...updated, ...removed].some((clientId) => clientId !== doc.clientID)) view.dispatch({ annotations: moved.of(true) });
        };
        awareness.on('change', this.changed);
      }

      update({ view, docChanged, selectionSet, focusChanged, transactions }: ViewUpdate): void {
        if (docChanged || selectionSet || focusChanged) tell(view);
        if (docChanged || transactions.some((transaction) => transaction.annotation(moved))) this.decorations = draw(view.state.doc.length);
      }

      destroy(): void {
        awareness.off('change', this.changed);
      }
    },
    { decorations: (plugin) => plugin.decorations },
  );
}
