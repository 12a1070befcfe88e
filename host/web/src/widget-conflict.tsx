// The decision about a conflict: mine, theirs, or each field as chosen. Owns the choices until one is taken.

import { useEffect, useRef, useState } from 'preact/hooks';

import { count } from './page.js';
import { text } from './widget-card.js';
import { same, type Conflict, type Data, type Resolution } from './widget-client.js';

const LABELS: Record<string, string> = { title: 'Title', value: 'Value' };

interface ConflictDialogProps {
  conflict: Conflict;
  /** Conflicts that wait behind this one. */
  more: number;
  onDecide: (resolution: Resolution, merged?: Data) => void;
}

export function ConflictDialog({ conflict, more, onDecide }: ConflictDialogProps) {
  const { serverData, clientData } = conflict;
  const [theirs, choose] = useState<ReadonlySet<string>>(new Set());
  const first = useRef<HTMLButtonElement>(null);
  useEffect(() => first.current?.focus({ preventScroll: true }), []);
  useEffect(() => first.current?.closest('.pane')?.scrollIntoView({ block: 'nearest' }), []);
  const name = text((clientData ?? serverData)?.title) || 'A widget';
  const both = serverData && clientData;
  const differing = both ? Object.keys({ ...serverData, ...clientData }).filter((key) => !same(serverData[key], clientData[key])) : [];
  const merged = (): Data => {
    const data: Data = { ...serverData, ...clientData };
    for (const key of theirs) if (serverData && key in serverData) data[key] = serverData[key] ?? null;
    return data;
  };
  return (
    <div class="conflict" role="alertdialog" aria-labelledby={`about-${conflict.conflictId}`} data-conflict-id={conflict.conflictId} data-widget-id={conflict.widgetId}>
      <div class="sheet">
        <p class="label hot">Conflict{more > 0 && `, ${count(more, 'more', 'more')} behind it`}</p>
        <h3 id={`about-${conflict.conflictId}`}>{both ? `“${name}” was changed by others while you changed it` : clientData ? `“${name}”, which you changed, was deleted` : `“${name}”, which you deleted, was changed`}</h3>
        {both ? (
          <table>
            <thead><tr><th><span class="hush">Field</span></th><th>Mine</th><th>Theirs</th></tr></thead>
            <tbody>
              {differing.map((key) => (
                <tr key={key} data-field={key}>
                  <th>{LABELS[key] ?? key}</th>
                  {(['mine', 'theirs'] as const).map((side) => (
                    <td key={side}>
                      <label class="pick">
                        <input type="radio" name={`${conflict.conflictId} ${key}`} value={side} checked={theirs.has(key) === (side === 'theirs')}
                          onChange={() => choose((now) => new Set(side === 'theirs' ? [...now, key] : [...now].filter((other) => other !== key)))} />
                        <span>{text((side === 'mine' ? clientData : serverData)[key]) || '–'}</span>
                      </label>
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        ) : (
          <dl>
            <dt class="label">Mine</dt>
            <dd>{clientData ? `${text(clientData.title)}: ${text(clientData.value)}` : 'Deleted'}</dd>
            <dt class="label">Theirs</dt>
            <dd>{serverData ? `${text(serverData.title)}: ${text(serverData.value)}` : 'Deleted'}</dd>
          </dl>
        )}
        <div class="row wrap">
          <button class="solid" type="button" ref={first} data-resolve="client" onClick={() => onDecide('client')}>Keep mine</button>
          <button class="plain" type="button" data-resolve="server" onClick={() => onDecide('server')}>Take theirs</button>
          {both && <button class="plain" type="button" data-resolve="merge" onClick={() => onDecide('merge', merged())}>Merge as chosen</button>}
        </div>
        {conflict.expired && <p class="muted">The server waits no longer: your decision will be a change of its own.</p>}
      </div>
    </div>
  );
}
