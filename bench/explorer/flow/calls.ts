/** Calls of functions on the other side of a thread's border, in both directions. */

type Functions = Readonly<Record<string, (...given: never[]) => unknown>>;
type Port = Pick<Worker, 'postMessage' | 'addEventListener'>;

interface Call {
  readonly call: string;
  readonly id: number;
  readonly given: never[];
}
interface Answer {
  readonly answered: number;
  readonly value?: unknown;
  readonly error?: string;
}

/** Answers calls by `own`; the function that it returns calls those of the other side. */
export function connect<Other extends Functions>(port: Port, own: Functions) {
  const waiting: { answer(value: unknown): void; fail(error: Error): void }[] = [];
  const answerTo = async ({ call, id, given }: Call) => {
    try {
      port.postMessage({ answered: id, value: await own[call](...given) });
    } catch (error) {
      port.postMessage({ answered: id, error: error instanceof Error ? error.message : String(error) });
    }
  };
  port.addEventListener('message', ({ data }: MessageEvent<Call | Answer>) => {
    if ('call' in data) answerTo(data);
    else if (data.error === undefined) waiting[data.answered].answer(data.value);
    else waiting[data.answered].fail(new Error(data.error));
  });
  port.addEventListener('error', ({ message }: ErrorEvent) => {
    for (const { fail } of waiting) fail(new Error(`the thread of the tabletop world ended: ${message}`));
  });
  return <Name extends keyof Other & string>(call: Name, ...given: Parameters<Other[Name]>) =>
    new Promise<Awaited<ReturnType<Other[Name]>>>((answer, fail) => {
      port.postMessage({ call, id: waiting.length, given });
      waiting.push({ answer: answer as (value: unknown) => void, fail });
    });
}
