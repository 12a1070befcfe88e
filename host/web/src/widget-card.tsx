// One widget: what it shows, and the fields to change it. Owns what is being typed, which nobody else's change may take away.

import { useState } from 'preact/hooks';

import { Icon, hash } from './page.js';
import type { Data, Widget } from './widget-client.js';

interface WidgetCardProps {
  widget: Widget;
  wide: boolean;
  first: boolean;
  last: boolean;
  onChange: (data: Data) => void;
  onDelete: () => void;
  onMove: (by: -1 | 1) => void;
  /** Another widget was dropped on this one. */
  onDrop: (id: string) => void;
  onWide: () => void;
}

const DRAGGED = 'application/x-hotbay-widget';

export function WidgetCard({ widget, wide, first, last, onChange, onDelete, onMove, onDrop, onWide }: WidgetCardProps) {
  const [over, setOver] = useState(false);
  const [grabbed, grab] = useState(false);
  const { id, data, pending, conflicted, version } = widget;
  const name = text(data.title) || 'untitled';
  const take = (event: DragEvent): void => {
    event.preventDefault();
    setOver(false);
    onDrop(event.dataTransfer?.getData(DRAGGED) ?? '');
  };
  return (
    <li class={`widget hue-${hash(id) % 4} ${wide ? 'wide' : ''} ${over ? 'over' : ''}`} data-widget-id={id} data-version={version} data-pending={pending} data-conflicted={conflicted}
      draggable={grabbed}
      onDragStart={(event) => event.dataTransfer?.setData(DRAGGED, id)}
      onDragEnd={() => grab(false)}
      onDragOver={(event) => { if (event.dataTransfer?.types.includes(DRAGGED)) { event.preventDefault(); setOver(true); } }}
      onDragLeave={() => setOver(false)}
      onDrop={take}>
      <Editable field="title" label={`Title of “${name}”`} value={text(data.title)} onChange={(title) => onChange({ title })} />
      <Editable field="value" label={`Value of “${name}”`} value={text(data.value)} onChange={(value) => onChange({ value })} />
      <div class="tools">
        <span class="icon grip" title="Drag to move" aria-hidden="true" onPointerDown={() => grab(true)} onPointerUp={() => grab(false)}><Icon name="grip" size={18} /></span>
        <button class="icon" type="button" data-action="back" aria-label={`Move “${name}” back`} title="Move back" disabled={first} onClick={() => onMove(-1)}><Icon name="left" size={18} /></button>
        <button class="icon" type="button" data-action="forward" aria-label={`Move “${name}” on`} title="Move on" disabled={last} onClick={() => onMove(1)}><Icon name="right" size={18} /></button>
        <button class="icon" type="button" data-action="wide" aria-label={`Make “${name}” ${wide ? 'narrow' : 'wide'}`} title={wide ? 'Narrow' : 'Wide'} aria-pressed={wide} onClick={onWide}><Icon name="wide" size={18} /></button>
        <button class="icon" type="button" data-action="delete" aria-label={`Delete “${name}”`} title="Delete" onClick={onDelete}><Icon name="bin" size={18} /></button>
      </div>
      {pending && <span class="mark-pending" title="Not confirmed yet" aria-label="Not confirmed yet" role="img" />}
    </li>
  );
}

export const text = (value: unknown): string => (typeof value === 'string' ? value : value === undefined || value === null ? '' : JSON.stringify(value));

/** A text that is a field when one types in it. Enter and leaving keep the change, Escape does not. */
function Editable({ field, label, value, onChange }: { field: string; label: string; value: string; onChange: (value: string) => void }) {
  const [draft, type] = useState<string | null>(null);
  const keep = (): void => {
    if (draft !== null && draft.trim() !== value) onChange(draft.trim());
    type(null);
  };
  return (
    <input class={`widget-${field}`} name={field} aria-label={label} value={draft ?? value} maxLength={80} autocomplete="off" spellcheck={false} enterkeyhint="done"
      onFocus={(event) => event.currentTarget.select()}
      onInput={(event) => type(event.currentTarget.value)}
      onBlur={keep}
      onKeyDown={(event) => {
        if (event.key === 'Enter') event.currentTarget.blur();
        // The draft is gone before the field is left, so leaving keeps nothing.
        if (event.key === 'Escape') { type(null); event.currentTarget.value = value; event.stopPropagation(); }
      }} />
  );
}
