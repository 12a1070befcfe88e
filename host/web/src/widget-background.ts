// Sync without a socket: posts waiting changes every `syncInterval`, and tries a failed post again. Owns its timers and nothing else.

import { BACKGROUND_SYNC_CONFIG } from './widget-protocol.js';

/** `done`: all went through; `failed`: try again soon; `stop`: not before the next interval. */
export type Outcome = 'done' | 'failed' | 'stop';

type Timer = ReturnType<typeof setTimeout>;

export class BackgroundSync {
  private timer: Timer | null = null;
  private running = false;
  private failures = 0;
  /** When the next post is due; `null` while none is. */
  due_ms: number | null = null;

  constructor(
    private readonly post: () => Promise<Outcome>,
    private readonly changed: () => void,
    private readonly config = BACKGROUND_SYNC_CONFIG,
  ) {}

  /** Starts the intervals, the first one now. */
  start(): void {
    if (this.timer === null && !this.running) this.wait(this.config.syncInterval);
  }

  stop(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    this.due_ms = null;
    this.failures = 0;
  }

  /** Posts now rather than at the end of the interval. */
  async now(): Promise<void> {
    if (this.running) return;
    this.stop();
    await this.run();
  }

  private wait(delay_ms: number): void {
    this.due_ms = Date.now() + delay_ms;
    this.timer = setTimeout(() => void this.run(), delay_ms);
    this.changed();
  }

  private async run(): Promise<void> {
    this.timer = null;
    this.due_ms = null;
    this.running = true;
    const failures = this.failures;
    const outcome = await this.post().catch((): Outcome => 'failed');
    this.running = false;
    // `start` during the post found it running; whoever posts says by `stop` whether there is to be a next one.
    if (outcome === 'stop') {
      this.failures = 0;
      return;
    }
    if (outcome === 'failed' && failures < this.config.retryAttempts) {
      this.failures = failures + 1;
      return this.wait(this.config.retryDelay);
    }
    this.failures = 0;
    this.wait(this.config.syncInterval);
  }
}
