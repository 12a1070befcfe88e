// The editor of a draft: CodeMirror on the shared text. Owns the view and its look. It lives in a shadow root, where CodeMirror adopts its
// styles as sheets; in a page it would add style elements, which the page's policy refuses.

import { defaultKeymap } from '@codemirror/commands';
import { Compartment, EditorState } from '@codemirror/state';
import { EditorView, keymap, placeholder } from '@codemirror/view';
import { yCollab, yUndoManagerKeymap } from 'y-codemirror.next';
import { UndoManager } from 'yjs';

import { COLOURS, type DraftSession } from './draft-session.js';
import { remoteCursors } from './remote-cursors.js';

const look = EditorView.theme({
  '&': { fontSize: '1.125rem', color: 'var(--ink)' },
  '&.cm-focused': { outline: 'none' },
  '.cm-scroller': { fontFamily: 'var(--serif)', lineHeight: '1.7', overflow: 'visible' },
  '.cm-content': { padding: '0', caretColor: 'var(--ink)', minHeight: 'var(--sheet-height)' },
  '.cm-line': { padding: '0' },
  '.cm-placeholder': { color: 'var(--muted)' },
  '.remote-selection': { backgroundColor: 'color-mix(in srgb, var(--hue) 28%, transparent)' },
  '.remote-caret': { position: 'relative', borderLeft: '2px solid var(--hue)', marginLeft: '-1px', marginRight: '-1px' },
  '.remote-name': {
    position: 'absolute', left: '-2px', bottom: '100%', padding: '0 .375rem', borderRadius: '.3rem .3rem .3rem 0', backgroundColor: 'var(--hue)', color: '#fff',
    font: '600 .6875rem/1.125rem var(--sans)', whiteSpace: 'nowrap', maxWidth: '9rem', overflow: 'hidden', textOverflow: 'ellipsis', userSelect: 'none', pointerEvents: 'none', zIndex: '1',
  },
  ...Object.fromEntries(COLOURS.map((colour, hue) => [`.hue-${hue}`, { '--hue': colour }])),
});

export class DraftEditor {
  private readonly view: EditorView;
  private readonly writable = new Compartment();
  private isWritable = false;

  constructor(host: HTMLElement, { text, provider }: DraftSession, label: string) {
    const root = host.shadowRoot ?? host.attachShadow({ mode: 'open' });
    this.view = new EditorView({
      parent: root as unknown as DocumentFragment,
      root,
      state: EditorState.create({
        doc: text.toString(),
        extensions: [
          this.writable.of(locked(true)),
          keymap.of([...yUndoManagerKeymap, ...defaultKeymap]),
          EditorView.lineWrapping,
          EditorView.contentAttributes.of({ 'aria-label': label, spellcheck: 'true', autocorrect: 'on', autocapitalize: 'sentences' }),
          placeholder('Write the first line…'),
          yCollab(text, null, { undoManager: new UndoManager(text) }),
          remoteCursors(text, provider.awareness),
          look,
        ],
      }),
    });
  }

  /** Lets one write, or only read. */
  setWritable(writable: boolean): void {
    if (writable === this.isWritable) return;
    this.isWritable = writable;
    this.view.dispatch({ effects: this.writable.reconfigure(locked(!writable)) });
  }

  focus(): void {
    this.view.focus();
  }

  destroy(): void {
    this.view.destroy();
  }
}

/** Not editable as well as read-only: a phone brings up no keyboard then. */
const locked = (is: boolean) => [EditorState.readOnly.of(is), EditorView.editable.of(!is)];
