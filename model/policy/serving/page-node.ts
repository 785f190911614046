/** The page of a served policy: what each robot's policy sees, says and does, as it happens. Node only. */
import { readFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Image } from '../../data/dataset.ts';
import type { RawObservation } from '../encoding.ts';
import type { Answer } from './served-policy.ts';

/** Milliseconds between two pictures of a session on the page: a robot may ask more often than people can look. */
const LEAST_INTERVAL = 100;
/** Pixels of the longer side of a picture on the page, which is about what a policy gets and what there is room for. */
const MOST_PIXELS = 320;
/** Bytes that a browser has not taken before moments are left out for it. */
const MOST_WAITING = 2 ** 23;

/** Sends the moments of all sessions to every browser that shows the page. */
export class LivePage {
  private readonly watching = new Set<ServerResponse>();
  private readonly shown = new Map<number, number>();

  private constructor(
    private readonly html: string,
    /** What the policy is, in a line. */
    private readonly title: string,
  ) {}

  static async open(title: string): Promise<LivePage> {
    return new LivePage(await readFile(new URL('./page.html', import.meta.url), 'utf8'), title);
  }

  /** Answers the requests of the page; false for others. */
  readonly answer = (request: IncomingMessage, response: ServerResponse): boolean => {
    if (request.url === '/') {
      const policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
      response.writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'content-security-policy': policy });
      response.end(this.html);
    } else if (request.url === '/events') {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
      response.write(eventOf({ title: this.title }));
      this.watching.add(response);
      response.on('close', () => this.watching.delete(response));
    } else return false;
    return true;
  };

  /** Shows an answer of a session; nothing is done while nobody looks. The answer waits for it, so it encodes nothing. */
  show(session: number, seen: RawObservation, { actions, dimension, said, milliseconds }: Answer): void {
    const now = performance.now();
    const ready = [...this.watching].filter(({ writableLength }) => writableLength < MOST_WAITING);
    if (ready.length === 0 || now - (this.shown.get(session) ?? -Infinity) < LEAST_INTERVAL) return;
    this.shown.set(session, now);
    const pictures = Object.entries(seen.images).map(([camera, image]) => ({ camera, ...(image && pictureOf(image)) }));
    const rows = Array.from({ length: actions.length / dimension }, (_, row) =>
      Array.from(actions.subarray(row * dimension, (row + 1) * dimension)),
    );
    const state = seen.state && Array.from(seen.state);
    const moment = { session, instruction: seen.instruction, state, pictures, said, actions: rows, milliseconds };
    const event = eventOf(moment);
    for (const response of ready) response.write(event);
  }

  forget(session: number): void {
    this.shown.delete(session);
    const event = eventOf({ session, gone: true });
    for (const response of this.watching) response.write(event);
  }
}

/** Bytes that all browsers share. */
const eventOf = (event: unknown) => Buffer.from(`data: ${JSON.stringify(event)}\n\n`);

/** Every so many pixels of a picture, RGB in base64. */
function pictureOf({ width, height, pixels }: Image) {
  const step = Math.ceil(Math.max(width, height) / MOST_PIXELS);
  const [across, down] = [Math.ceil(width / step), Math.ceil(height / step)];
  const taken = Buffer.alloc(down * across * 3);
  for (let y = 0, at = 0; y < down; y++)
    for (let x = 0; x < across; x++)
      for (let channel = 0; channel < 3; channel++) taken[at++] = pixels[(y * width + x) * step * 3 + channel];
  return { picture: taken.toString('base64'), width: across, height: down };
}
