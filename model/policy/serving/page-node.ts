/** The page of a served policy: what each robot's policy sees, says and does, as it happens. Node only. */
import { readFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { encodePng } from '../../data/index.ts';
import type { RawObservation } from '../encoding.ts';
import type { Answer } from './served-policy.ts';

/** Milliseconds between two pictures of a session on the page: a robot may ask more often than people can look. */
const LEAST_INTERVAL = 100;
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
      const policy =
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
      response.writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'content-security-policy': policy });
      response.end(this.html);
    } else if (request.url === '/events') {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
      send(response, { title: this.title });
      this.watching.add(response);
      response.on('close', () => this.watching.delete(response));
    } else return false;
    return true;
  };

  /** Shows an answer of a session; nothing is done while nobody looks. */
  async show(session: number, seen: RawObservation, { actions, dimension, said }: Answer, milliseconds: number) {
    const now = performance.now();
    if (this.watching.size === 0 || now - (this.shown.get(session) ?? -Infinity) < LEAST_INTERVAL) return;
    this.shown.set(session, now);
    const pictures = await Promise.all(
      Object.entries(seen.images).map(async ([camera, image]) => {
        const png = image && Buffer.from(await encodePng(image)).toString('base64');
        return { camera, picture: png && `data:image/png;base64,${png}`, width: image?.width, height: image?.height };
      }),
    );
    const rows = Array.from({ length: actions.length / dimension }, (_, row) =>
      Array.from(actions.subarray(row * dimension, (row + 1) * dimension)),
    );
    const state = seen.state && Array.from(seen.state);
    const moment = { session, instruction: seen.instruction, state, pictures, said, actions: rows, milliseconds };
    for (const response of this.watching) if (response.writableLength < MOST_WAITING) send(response, moment);
  }

  forget(session: number): void {
    this.shown.delete(session);
    for (const response of this.watching) send(response, { session, gone: true });
  }
}

const send = (response: ServerResponse, event: unknown) => response.write(`data: ${JSON.stringify(event)}\n\n`);
