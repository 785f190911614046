/** Work on the adapter that a section starts, with its state, its answer and its button. */
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Device } from '../../engine/index.ts';
import type { Adapter } from './device.ts';
import { Problem } from './parts.tsx';

/**
 * One piece of work at a time, a newer one in place of those that wait. `busy` while it runs; `problem` is the last failure in one
 * sentence, until the next success. Work ends with its section.
 */
export function useWork(adapter: Adapter) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const running = useRef<AbortController | null>(null);
  useEffect(() => () => running.current?.abort(), []);
  const run = async (work: (device: Device, signal: AbortSignal) => unknown) => {
    running.current?.abort();
    const own = new AbortController();
    running.current = own;
    setBusy(true);
    try {
      await adapter.turn((device) => work(device, own.signal), own.signal);
      if (running.current === own) setProblem(null);
    } catch (error) {
      if (!own.signal.aborted) setProblem(error instanceof Error ? error.message : String(error));
    } finally {
      if (running.current === own) setBusy(false);
    }
  };
  return { run, busy, problem };
}

/** What came of work, the settings that it was done for, and the seconds that it took. */
export interface Answer<Value, Settings> {
  readonly value: Value;
  readonly of: Settings;
  readonly seconds: number;
}

export async function answerOf<Value, Settings>(of: Settings, work: () => Promise<Value>) {
  const begin = performance.now();
  const value = await work();
  return { value, of, seconds: (performance.now() - begin) / 1000 };
}

/** Work whose last answer stays until the next one. */
export function useAnswer<Value, Settings>(adapter: Adapter) {
  const [answer, setAnswer] = useState<Answer<Value, Settings> | null>(null);
  const work = useWork(adapter);
  const ask = (of: Settings, make: (device: Device, signal: AbortSignal) => Promise<Value>) =>
    work.run(async (device, signal) => {
      const made = await answerOf(of, () => make(device, signal));
      if (!signal.aborted) setAnswer(made);
    });
  return { ...work, answer, ask };
}

/** Starts work on demand, says while it runs, and tells its failure. */
export function WorkButton(props: {
  text: string;
  busy: boolean;
  problem?: string | null;
  main?: boolean;
  onClick(): void;
}) {
  const { text, busy, problem, main, onClick } = props;
  return (
    <>
      <button type="button" class={main ? 'main' : undefined} disabled={busy} onClick={onClick}>
        {busy ? 'Being computed …' : text}
      </button>
      {problem && <Problem text={problem} />}
    </>
  );
}
