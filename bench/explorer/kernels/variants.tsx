/** The variants of a kernel that this adapter runs, timed beside each other at places of a model. */
import { useEffect, useState } from 'preact/hooks';
import { type Device, InputError } from '../../../engine/index.ts';
import { chosenVariants, type MatmulKey, useVariants, type VariantKey } from '../../../kernels/index.ts';
import { attentionCandidates } from '../../attention/tune.ts';
import { ProductCandidates } from '../../kernels/product-candidates.ts';
import { modelShapeOf } from '../../kernels/shapes.ts';
import type { Candidates } from '../../measure/candidates.ts';
import { inRounds } from '../../measure/rounds.ts';
import { pairedRatio, type Ratio, type Spread, spread } from '../../measure/statistics.ts';
import { digits } from '../../measure/table.ts';
import { Work } from '../../measure/work.ts';
import type { Adapter } from '../device.ts';
import { Choice, Figure, Problem, useWork } from '../parts.tsx';
import { ROUNDS, ratioText, SAMPLE, SECONDS } from './trial.ts';

type Places = Disposable & { readonly all: readonly Candidates<VariantKey | MatmulKey>[] };

export const hasVariants = (kernel: string): boolean => /^(matmul|attention)(\.|$)/.test(kernel);

function placesOf(device: Device, kernel: string): Places {
  if (kernel.startsWith('matmul'))
    return new ProductCandidates(device, modelShapeOf(device, device.software ? undefined : 'smol'), ['f32']);
  const all = attentionCandidates(device, { directions: ['forward', 'backward'], storages: ['f32'] });
  return { all, [Symbol.dispose]: () => {} };
}

function titleOf({ key, sizes }: Candidates<VariantKey | MatmulKey>): string {
  if ('entry' in key) return `${key.entry}, ${sizes}`;
  const form = `${key.transposeA ? 'Aᵀ' : 'A'} ${key.transposeB ? 'Bᵀ' : 'B'}`;
  return `${form}${key.sides === 2 ? ', two sides' : ''}, ${sizes}`;
}

interface Measured {
  readonly variant: string;
  readonly time: Spread;
  readonly ratio: Ratio | null;
}

/** The variants of one place in the same rounds, the one that this adapter takes by itself first. */
async function compareVariants(device: Device, kernel: string, title: string, signal: AbortSignal) {
  using places = placesOf(device, kernel);
  const place = places.all.find((own) => titleOf(own) === title);
  if (!place) throw new InputError(`This adapter has no such place: ${title}.`);
  const before = chosenVariants(device);
  try {
    const works = place.variants.map((name) => new Work(device, name, place.task(name), 'wall', SAMPLE));
    const { times } = await inRounds(works, { seconds: SECONDS, rounds: ROUNDS, signal });
    signal.throwIfAborted();
    return place.variants.map((variant, i): Measured => {
      return { variant, time: spread(times[i]), ratio: i > 0 ? pairedRatio(times[i], times[0]) : null };
    });
  } finally {
    useVariants(device, before);
  }
}

export function Variants({ adapter, kernel }: { adapter: Adapter; kernel: string }) {
  const [titles, setTitles] = useState<readonly string[]>([]);
  const [title, setTitle] = useState('');
  const [result, setResult] = useState<{ title: string; rows: readonly Measured[] } | null>(null);
  const { run, busy, problem } = useWork(adapter);
  useEffect(() => {
    void run((device) => {
      using places = placesOf(device, kernel);
      const found = places.all.filter(({ variants }) => variants.length > 1).map(titleOf);
      setTitles(found);
      setTitle(found[0] ?? '');
    });
  }, [kernel]);
  const compare = () =>
    run(async (device, signal) => setResult({ title, rows: await compareVariants(device, kernel, title, signal) }));
  return (
    <Figure
      title="Variants"
      unit="milliseconds"
      see="One product or one entry point in every tile that this adapter can run; the first is the one that it takes by itself."
    >
      {titles.length === 0 ? (
        <p>
          {busy ? 'The variants are being listed …' : 'This adapter has one variant of each that is worth its time.'}
        </p>
      ) : (
        <div class="controls">
          <Choice label="Place in a model" value={title} options={titles} onChange={setTitle} />
          <button type="button" disabled={busy} onClick={compare}>
            {busy ? 'Being timed …' : 'Compare the variants'}
          </button>
        </div>
      )}
      {problem && <Problem text={problem} />}
      {result && (
        <div class={busy ? 'wide busy' : 'wide'}>
          <table>
            <caption>{result.title}</caption>
            <thead>
              <tr>
                <th scope="col">Variant</th>
                <th scope="col" class="number">
                  Time, ms
                </th>
                <th scope="col">By the first</th>
              </tr>
            </thead>
            <tbody>
              {result.rows.map(({ variant, time, ratio }) => (
                <tr key={variant}>
                  <th scope="row">{variant}</th>
                  <td class="number">{digits(time.median)}</td>
                  <td>{ratio ? ratioText(ratio) : ''}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Figure>
  );
}
