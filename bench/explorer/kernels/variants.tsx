/** The variants of a kernel that this adapter runs, timed beside each other at places of a model. */
import { useEffect, useState } from 'preact/hooks';
import { type Device, InputError } from '../../../engine/index.ts';
import { chosenVariants, type MatmulKey, useVariants, type VariantKey } from '../../../kernels/index.ts';
import { attentionCandidates } from '../../attention/tune.ts';
import { ProductCandidates } from '../../kernels/product-candidates.ts';
import { modelShapeOf } from '../../kernels/shapes.ts';
import type { Candidates } from '../../measure/candidates.ts';
import { inRounds } from '../../measure/rounds.ts';
import { pairedRatio, spread } from '../../measure/statistics.ts';
import { digits } from '../../measure/table.ts';
import { Work } from '../../measure/work.ts';
import type { Adapter } from '../device.ts';
import { Choice, Figure, Table } from '../parts.tsx';
import { useAnswer, useWork, WorkButton } from '../work.tsx';
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

/** Rows of the variants of one place in the same rounds, the one that this adapter takes by itself first. */
async function compareVariants(device: Device, kernel: string, title: string, signal: AbortSignal) {
  using places = placesOf(device, kernel);
  const place = places.all.find((own) => titleOf(own) === title);
  if (!place) throw new InputError(`This adapter has no such place: ${title}.`);
  const before = chosenVariants(device);
  try {
    const works = place.variants.map((name) => new Work(device, name, place.task(name), 'wall', SAMPLE));
    const { times } = await inRounds(works, { seconds: SECONDS, rounds: ROUNDS, signal });
    signal.throwIfAborted();
    return place.variants.map((variant, i) => {
      const ratio = i > 0 ? pairedRatio(times[i], times[0]) : null;
      return [variant, digits(spread(times[i]).median), ratio && ratioText(ratio)];
    });
  } finally {
    useVariants(device, before);
  }
}

export function Variants({ adapter, kernel }: { adapter: Adapter; kernel: string }) {
  const [titles, setTitles] = useState<readonly string[]>([]);
  const [title, setTitle] = useState('');
  const listing = useWork(adapter);
  const { answer, ask, busy, problem } = useAnswer<Awaited<ReturnType<typeof compareVariants>>, string>(adapter);
  useEffect(() => {
    void listing.run((device) => {
      using places = placesOf(device, kernel);
      const found = places.all.filter(({ variants }) => variants.length > 1).map(titleOf);
      setTitles(found);
      setTitle(found[0] ?? '');
    });
  }, [kernel]);
  const compare = () => ask(title, (device, signal) => compareVariants(device, kernel, title, signal));
  return (
    <Figure
      title="Variants"
      unit="milliseconds"
      see="One product or one entry point in every tile that this adapter can run; the first is the one that it takes by itself."
    >
      {titles.length === 0 ? (
        <p>
          {listing.busy
            ? 'The variants are being listed …'
            : (listing.problem ?? 'This adapter has one variant of each that is worth its time.')}
        </p>
      ) : (
        <div class="controls">
          <Choice label="Place in a model" value={title} options={titles} onChange={setTitle} />
          <WorkButton busy={busy} problem={problem} text="Compare the variants" onClick={compare} />
        </div>
      )}
      {answer && (
        <div class={busy ? 'busy' : undefined}>
          <Table head={[answer.of, 'time, ms', 'by the first']} rows={answer.value} />
        </div>
      )}
    </Figure>
  );
}
