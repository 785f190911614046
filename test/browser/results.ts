import type { PageResult } from './chromium.ts';

/** How long the page may go without ending a test before it is given up. Its own tests time out earlier. */
const SILENCE_SECONDS = 1600;

/** Results of the page's tests as they come. A test that never ends has an error that says why as its result. */
export class Results {
  /** The page was given up. */
  silent = false;
  private readonly waiting = new Map<string, (result: PageResult) => void>();
  private readonly results: ReadonlyMap<string, Promise<PageResult>>;
  private timer: NodeJS.Timeout | undefined;

  constructor(ids: readonly string[]) {
    this.results = new Map(ids.map((id) => [id, new Promise((resolve) => this.waiting.set(id, resolve))]));
  }

  of(id: string): Promise<PageResult> {
    return this.results.get(id)!;
  }

  give(result: PageResult): void {
    this.waiting.get(result.id)?.(result);
    this.waiting.delete(result.id);
    this.expectMore();
  }

  expectMore(): void {
    clearTimeout(this.timer);
    if (this.waiting.size === 0) return;
    this.timer = setTimeout(() => {
      this.silent = true;
      this.end(`the page ended no test for ${SILENCE_SECONDS} s`);
    }, SILENCE_SECONDS * 1000);
  }

  /** No more results come. */
  end(reason: string): void {
    clearTimeout(this.timer);
    for (const [id, resolve] of this.waiting)
      resolve({ id, skipped: false, errors: [{ message: `this test gave no result: ${reason}` }] });
    this.waiting.clear();
  }
}
