import { useEffect, useRef, useState } from 'preact/hooks';
import * as v from 'valibot';
import { nearest } from '../../../engine/files/nearest.ts';
import { type Kernel, loadedKernels } from '../../../engine/index.ts';
import type { Roof } from '../../measure/roofline.ts';
import type { Adapter } from '../device.ts';
import { useLinked } from '../link.ts';
import { Choice, Figure, Problem } from '../parts.tsx';
import { type Answer, answerOf, useWork, WorkButton } from '../work.tsx';
import { compile, type Fault, packEdit, sentenceOf, unpackEdit } from './edit.ts';
import { Editors, HEAD } from './editors.tsx';
import { markupOf, mathematicsOf } from './mathematics.ts';
import { limitSentence, RoofFigure } from './roof.tsx';
import { CheckTable, TimeTable } from './tables.tsx';
import {
  type Checked,
  checkOp,
  idleEntries,
  kernelNames,
  knownRoof,
  measureRoof,
  opsOf,
  type Timed,
  timeOp,
} from './trial.ts';
import { hasVariants, Variants } from './variants.tsx';

const stateSchema = v.object({
  kernel: v.string(),
  /** The first op of the kernel if none is named. */
  op: v.optional(v.string()),
  /** Entry points in the views, the first forward one and the first backward one if none are named. */
  shown: v.optional(v.tuple([v.string(), v.string()])),
  edit: v.optional(v.string()),
});
type State = v.InferOutput<typeof stateSchema>;
const initial: State = { kernel: kernelNames[0] };

export function KernelsSection({ adapter }: { adapter: Adapter }) {
  const { state, change, problem } = useLinked('kernels', stateSchema, initial);
  const known = loadedKernels.get(state.kernel);
  const shipped = known ?? loadedKernels.get(initial.kernel)!;
  const unknown = known ? null : `There is no kernel '${state.kernel}': ${nearest(state.kernel, kernelNames)}.`;
  const choose = (kernel: string) => change({ kernel, op: undefined, shown: undefined, edit: undefined });
  return (
    <>
      {(problem || unknown) && <Problem text={(problem ?? unknown)!} />}
      <KernelPage key={shipped.name} {...{ adapter, shipped, state, change, choose }} />
    </>
  );
}

/** The text of a link's edit, or the shipped one with what is wrong with that edit. */
function textOf({ source }: Kernel, edit: string | undefined): { text: string; damage: string | null } {
  try {
    return { text: edit === undefined ? source : unpackEdit(source, edit), damage: null };
  } catch (error) {
    return { text: source, damage: (error as Error).message };
  }
}

/** What the views show: the first forward entry point, or the head comment where there is one alone, and the first backward one. */
function placesOf({ entryPoints }: Kernel, shown: State['shown']): [string, string] {
  if (shown?.every((place) => place === HEAD || entryPoints.includes(place))) return shown;
  const back = entryPoints.find((own) => /backward|gradient/i.test(own)) ?? entryPoints[entryPoints.length - 1];
  return [back === entryPoints[0] ? HEAD : entryPoints[0], back];
}

function KernelPage(props: {
  adapter: Adapter;
  shipped: Kernel;
  state: State;
  change(part: Partial<State>): void;
  choose(kernel: string): void;
}) {
  const { adapter, shipped, state, change } = props;
  const { software } = adapter.device;
  const ops = opsOf(shipped.name);
  const op = ops.includes(state.op ?? '') ? state.op! : ops[0];
  const { text, damage } = textOf(shipped, state.edit);
  const edited = text !== shipped.source;
  const [faults, setFaults] = useState<readonly Fault[]>([]);
  const [checked, setChecked] = useState<Answer<readonly Checked[], string> | null>(null);
  const [timed, setTimed] = useState<Answer<Timed, string> | null>(null);
  const [roof, setRoof] = useState<Roof | null>(knownRoof(adapter.device));
  const trial = useWork(adapter);
  const roofing = useWork(adapter);

  const tryIt = () =>
    trial.run(async (device, signal) => {
      const compiled = edited ? await compile(device, shipped.name, text) : shipped;
      setFaults('name' in compiled ? [] : compiled);
      if (!('name' in compiled) || !op) return;
      const kernel = edited ? compiled : null;
      setChecked(await answerOf(op, () => checkOp(device, shipped.name, op, kernel, signal)));
      setTimed(await answerOf(op, () => timeOp(device, shipped.name, op, kernel, signal)));
    });
  // A software adapter compiles some kernels for seconds: there the shipped kernel is tried when the user asks.
  const first = useRef(true);
  useEffect(() => {
    if (edited || (op && (!first.current || !software))) void tryIt();
    else setFaults([]);
    first.current = false;
  }, [text, op]);

  const formulas = mathematicsOf(shipped.name);
  const ownChecked = checked?.of === op ? checked : null;
  const ownTimed = timed?.of === op ? timed : null;
  const idle = ownChecked ? idleEntries(adapter.device, shipped) : [];
  const stale = trial.busy || faults.length > 0;
  return (
    <>
      <div class="controls">
        <Choice label="Kernel" value={shipped.name} options={kernelNames} onChange={props.choose} />
        {ops.length > 1 && <Choice label="Op" value={op} options={ops} onChange={(own) => change({ op: own })} />}
        {op && <WorkButton main busy={trial.busy} text="Check and time it" onClick={tryIt} />}
        {edited && (
          <button type="button" onClick={() => change({ edit: undefined })}>
            Restore the shipped source
          </button>
        )}
      </div>
      {formulas && <Formulas {...formulas} />}
      <section>
        <Figure
          title={`kernels/${shipped.name}.wgsl`}
          see={`The file in two views. Change it: after a pause it is compiled${op ? ', checked beside float64 and timed against the shipped one' : ''}.`}
        >
          <Editors
            name={shipped.name}
            text={text}
            faults={faults}
            entryPoints={shipped.entryPoints}
            shown={placesOf(shipped, state.shown)}
            onChange={(own) => change({ edit: own === shipped.source ? undefined : packEdit(shipped.source, own) })}
            onShow={(shown) => change({ shown })}
          />
        </Figure>
        <div style={{ minHeight: '3.5rem' }} aria-live="polite">
          {damage && <Problem text={damage} />}
          {faults.length > 0 && (
            <Problem
              text={`${sentenceOf(faults[0]).replace(/[^.?]$/, '$&.')}${ownChecked ? ' The results below belong to an earlier text that compiled.' : ''}`}
            />
          )}
          {trial.problem && <Problem text={trial.problem} again={tryIt} />}
          {idle.length > 0 && (
            <p>{`No op has run ${idle.join(', ')} on this adapter so far: an edit there changes nothing that is shown here.`}</p>
          )}
          {!op && <p>No op of this file is checked by itself: it is here to read.</p>}
        </div>
      </section>
      {op && (
        <div class={stale ? 'grid busy' : 'grid'} style={{ minHeight: '17rem' }} aria-busy={trial.busy}>
          <CheckTable answer={ownChecked} />
          <TimeTable answer={ownTimed} roof={roof} />
        </div>
      )}
      {op && (
        <section>
          <Figure
            title="The roofline of this adapter"
            see={
              roof
                ? limitSentence(roof, ownTimed?.value.timings ?? [])
                : 'Its limits are measured by copies, multiply-adds and empty dispatches.'
            }
          >
            <div class="kernels-roof">
              {roof ? (
                <RoofFigure roof={roof} timings={ownTimed?.value.timings ?? []} />
              ) : (
                <WorkButton
                  {...{ busy: roofing.busy, problem: roofing.problem }}
                  text="Measure the roofline (some seconds)"
                  onClick={() => roofing.run(async (device, signal) => setRoof(await measureRoof(device, signal)))}
                />
              )}
            </div>
          </Figure>
        </section>
      )}
      {hasVariants(shipped.name) && (
        <section>
          <Variants adapter={adapter} kernel={shipped.name} />
        </section>
      )}
    </>
  );
}

function Formulas(props: { forward: readonly string[]; backward: readonly string[] }) {
  return (
    <div class="grid kernels-formulas">
      {Object.entries({ Forward: props.forward, Backward: props.backward }).map(
        ([title, lines]) =>
          lines.length > 0 && (
            <div key={title}>
              <h2>{title}</h2>
              {lines.map((line) => (
                <div key={line}>
                  {line.split(/, \\quad /).map((formula) => (
                    <div key={formula} class="wide" dangerouslySetInnerHTML={{ __html: markupOf(formula) }} />
                  ))}
                </div>
              ))}
            </div>
          ),
      )}
    </div>
  );
}
