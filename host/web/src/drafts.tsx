// The page of collaborative drafts: who one is, which draft, and how it is connected. Owns the sign-in and the frame around the editor; the
// document is the session's.

import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';

import { DraftEditor } from './draft-editor.js';
import { COLOURS, DraftSession, type DraftState, type Person, type Role } from './draft-session.js';
import { Choice, Flag, NoticeList, Notices, State, count, hash, isName, socketUrl, start, useHash } from './page.js';
import { demoTokens } from './token.js';

const STORE = 'hotbay.drafts';
/** All users of these pages are of one firm, so that drafts are open to all of them. */
const FIRM = 'demo';
const WORDS: Record<DraftState, string> = { connecting: 'Connecting…', connected: 'Live', reconnecting: 'Reconnecting…', offline: 'Offline', stopped: 'Closed' };

const notices = new Notices();

function Page() {
  const [user, enter] = useState(recall);
  const address = useHash();
  const draft = isName(address) ? address : 'logbook';
  const [role, play] = useState<Role>('editor');
  if (!user) return <Door onEnter={(name) => { remember(name); enter(name); }} />;
  return (
    <>
      <Draft key={`${draft} ${user} ${role}`} draft={draft} user={user} role={role} onRole={play} onLeave={() => { remember(null); enter(null); }} />
      <NoticeList notices={notices} />
    </>
  );
}

function Door({ onEnter }: { onEnter: (name: string) => void }) {
  const [name, type] = useState('');
  const wrong = name !== '' && !isName(name);
  return (
    <div class="door">
      <h1>Write together</h1>
      <p class="lede">A text that several people change at once. Open this page in a second window under another name, and watch the cursors.</p>
      <form id="enter" onSubmit={(event) => { event.preventDefault(); if (isName(name)) onEnter(name); }}>
        <label for="name">Your name</label>
        <div class="row">
          <input class="field" id="name" value={name} maxLength={40} autocomplete="nickname" autocapitalize="none" spellcheck={false} aria-invalid={wrong} aria-describedby="name-hint" onInput={(event) => type(event.currentTarget.value.trim())} autofocus />
          <button class="solid" disabled={!isName(name)}>Enter</button>
        </div>
        <p class={wrong ? 'hint wrong' : 'hint'} id="name-hint">Letters without accents, digits and <code>. _ - + ~ @ |</code></p>
      </form>
    </div>
  );
}

interface DraftProps {
  draft: string;
  user: string;
  role: Role;
  onRole: (role: Role) => void;
  onLeave: () => void;
}

function Draft({ draft, user, role, onRole, onLeave }: DraftProps) {
  const [, redraw] = useState(0);
  const [session, open] = useState<DraftSession | null>(null);
  const [online, setOnline] = useState(true);
  const host = useRef<HTMLDivElement>(null);
  const editor = useRef<DraftEditor | null>(null);

  useLayoutEffect(() => {
    const opened = new DraftSession({
      serverUrl: socketUrl('/yjs'), draft, user, role, hue: hash(user) % COLOURS.length,
      token: demoTokens(user, { userId: user, firmId: FIRM, role }),
      onChange: () => redraw((times) => times + 1),
      onRefused: (reason) => notices.add(`The server refused a change: ${reason}`),
    });
    editor.current = new DraftEditor(host.current as HTMLDivElement, opened, `Draft ${draft}`);
    open(opened);
    opened.setOnline(true);
    return () => {
      editor.current?.destroy();
      opened.destroy();
    };
  }, []);

  const unsent = session?.unsent ?? 0;
  useEffect(() => {
    if (!unsent) return;
    const warn = (event: BeforeUnloadEvent) => event.preventDefault();
    addEventListener('beforeunload', warn);
    return () => removeEventListener('beforeunload', warn);
  }, [unsent > 0]);

  const writable = role === 'editor' && session !== null && session.loaded;
  useEffect(() => editor.current?.setWritable(writable), [writable]);
  const state = session?.state ?? 'connecting';
  const people = session?.people ?? [];
  const words = session?.text.toString().match(/\S+/g)?.length ?? 0;
  return (
    <>
      <div class="title">
        <Name draft={draft} locked={unsent > 0} />
        <People people={people} />
      </div>
      <div class="bar">
        <State id="state" state={state} title={session?.error}>{WORDS[state]}</State>
        <Choice name="mode" label="Connection" value={online ? 'live' : 'offline'} options={[{ value: 'live', label: 'Online' }, { value: 'offline', label: 'Offline' }]}
          onChoose={(value) => { setOnline(value === 'live'); session?.setOnline(value === 'live'); }} />
        <Choice name="role" label="Role" value={role} options={[{ value: 'editor', label: 'Editor' }, { value: 'viewer', label: 'Viewer' }]}
          onChoose={(value) => (unsent ? notices.add('Go online first: your changes are only here.') : onRole(value))} />
        {unsent > 0 && <p class="badge warn" id="unsent" data-unsent={unsent}>{count(unsent, 'change')} only here</p>}
        {state === 'stopped' && <p class="badge hot" id="stopped">{session?.error} <button class="quiet" type="button" id="retry" onClick={() => session?.setOnline(true)}>Connect again</button></p>}
      </div>
      <div class="sheet paper" data-loaded={session?.loaded ?? false} onClick={(event) => { if (event.target === event.currentTarget) editor.current?.focus(); }}>
        {session && !session.loaded && <p class="muted opening">{state === 'stopped' ? 'This draft cannot be shown.' : 'Opening the draft…'}</p>}
        <div id="editor" ref={host} data-writable={writable} hidden={!session?.loaded} />
      </div>
      <p class="colophon"><span id="words">{count(words, 'word')}</span><span>{role === 'viewer' ? 'You read only' : `You write as ${user}`} · <button class="quiet" type="button" id="leave" disabled={unsent > 0} onClick={onLeave}>Change name</button></span></p>
    </>
  );
}

/** The draft's name, and the way to another. */
function Name({ draft, locked }: { draft: string; locked: boolean }) {
  const [text, type] = useState(draft);
  const good = isName(text);
  const go = (): void => {
    if (!good) return type(draft);
    if (text === draft) return;
    if (locked) notices.add('Go online first: your changes are only here.');
    else location.hash = text;
  };
  return (
    <form class="naming" id="draft-form" onSubmit={(event) => { event.preventDefault(); (document.activeElement as HTMLElement | null)?.blur(); go(); }}>
      <h1 class="hush">Draft {draft}</h1>
      <label class="label" for="draft">Draft</label>
      <input id="draft" value={text} maxLength={64} autocapitalize="none" autocomplete="off" spellcheck={false} enterkeyhint="go" aria-invalid={!good} onInput={(event) => type(event.currentTarget.value.trim())} onBlur={go} />
    </form>
  );
}

function People({ people }: { people: Person[] }) {
  return (
    <ul class="people" id="people" aria-label="Who is here">
      {people.map(({ clientId, name, hue, viewer, self }) => (
        <li key={clientId} class={`hue-${hue}`} data-user={name} data-self={self} data-viewer={viewer}>
          <Flag name={name} size={22} />
          <span>{name}</span>
          {self && <small>you</small>}
          {viewer && <small>reads</small>}
        </li>
      ))}
    </ul>
  );
}

/** The name for this window alone, so that two windows are two people. */
function recall(): string | null {
  try {
    return sessionStorage.getItem(STORE);
  } catch {
    return null;
  }
}

function remember(name: string | null): void {
  try {
    if (name) sessionStorage.setItem(STORE, name);
    else sessionStorage.removeItem(STORE);
  } catch {
    // Private windows may refuse; then the name is asked for again.
  }
}

start(<Page />);
