import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import * as v from 'valibot';
import { count } from '../../../engine/files/json-schema.ts';
import { totalsByKernel } from '../../../model/inspect/step-reading.ts';
import { formatPercent } from '../../../model/report/markup.ts';
import { digits } from '../../measure/table.ts';
import type { Adapter } from '../device.ts';
import { useLinked } from '../link.ts';
import { Check, Choice, Figure, Problem, Slider, Table } from '../parts.tsx';
import { useWork } from '../work.tsx';
import { choiceSchema, type ListedStep, listedStep, measuredTimes, presets, RUNS, stepSystems } from './capture.ts';
import { KernelLink, OperationDetails } from './details.tsx';
import { axes, StepPicture } from './picture.tsx';

const schema = v.object({
  ...choiceSchema.entries,
  axis: v.picklist(axes),
  /** The selected operation, from 0; null for the one with the most FLOPs. */
  selected: v.nullable(count(0, 1e5)),
});
type State = v.InferOutput<typeof schema>;
const initial: State = {
  ...{ system: 'knowledge-insulation', preset: 'tiny', batch: 2, depth: 2, recompute: false },
  ...{ axis: 'order', selected: null },
};

interface Shown {
  readonly step: ListedStep;
  /** The same step with the other setting of `recompute`. */
  readonly other: ListedStep;
  /** Measured seconds of each operation; null until there are some. */
  readonly measured: readonly number[] | null;
}

export function StepSection({ adapter }: { adapter: Adapter }) {
  const { state, change, problem } = useLinked('step', schema, initial);
  const { axis, selected, ...choice } = state;
  const [shown, setShown] = useState<Shown | null>(null);
  const work = useWork(adapter);
  const timed = adapter.device.features.has('timestamp-query');
  const key = JSON.stringify(choice);
  const capture = (measure: boolean) =>
    work.run(async (device, signal) => {
      const step = listedStep(device, choice);
      await new Promise((done) => setTimeout(done));
      const other = listedStep(device, { ...choice, recompute: !choice.recompute });
      signal.throwIfAborted();
      setShown({ step, other, measured: null });
      if (!measure) return;
      const measured = await measuredTimes(device, choice, signal);
      signal.throwIfAborted();
      setShown({ step, other, measured });
    });
  useEffect(() => {
    void capture(timed && !adapter.device.software);
  }, [key]);
  const resize = (part: Partial<State>) => change({ ...part, selected: null });
  const current = shown !== null && JSON.stringify(shown.step.choice) === key;
  return (
    <>
      {problem && <Problem text={problem} />}
      <div class="controls">
        <Choice label="System" value={state.system} options={stepSystems} onChange={(system) => resize({ system })} />
        <Choice label="Sizes" value={state.preset} options={presets} onChange={(preset) => resize({ preset })} />
        <Slider label="Batch" value={state.batch} min={1} max={16} onChange={(batch) => resize({ batch })} />
        <Slider label="Layers" value={state.depth} min={1} max={6} onChange={(depth) => resize({ depth })} />
        <Choice label="Along the axis" value={axis} options={axes} onChange={(axis) => change({ axis })} />
        <Check
          label="recompute (activation checkpointing)"
          checked={state.recompute}
          onChange={(recompute) => resize({ recompute })}
        />
      </div>
      {work.problem && <Problem text={work.problem} />}
      <div class={current ? 'stack step-shown' : 'stack step-shown busy'} style={{ minHeight: '60rem' }}>
        {shown ? (
          <ShownStep
            {...{ ...shown, axis }}
            selected={Math.min(selected ?? shown.step.busiest, shown.step.operations.length - 1)}
            onSelect={(selected) => change({ selected })}
          >
            {!timed && 'This adapter has no timestamps. '}
            {timed && !shown.measured && (
              <button type="button" disabled={work.busy} onClick={() => capture(true)}>
                {work.busy && current ? 'The kernels are compiled, and the step runs …' : 'Measure the times here'}
              </button>
            )}
          </ShownStep>
        ) : (
          <p>The step is being captured …</p>
        )}
      </div>
    </>
  );
}

interface ShownProps extends Shown {
  readonly axis: State['axis'];
  readonly selected: number;
  onSelect(operation: number): void;
  /** What can be done about the times. */
  readonly children: ComponentChildren;
}

function ShownStep({ step, other, measured, axis, selected, onSelect, children }: ShownProps) {
  const { operations, statistics, arenaBytes } = step;
  const times = measured ?? step.estimatedTimes;
  const total = times.reduce((sum, time) => sum + time, 0) || 1;
  const share = (time: number) => formatPercent(time / total, 1);
  const tell = (index: number) => {
    const { operation, phase, flops = 0 } = operations[index];
    return `${index + 1} of ${operations.length}: ${operation}, ${phase}, ${digits(flops / 1e6)} MFLOP, ${share(times[index])} of the step`;
  };
  const bound = statistics.lowerBoundBytes;
  const glance = [
    [digits(step.flops / 1e6), 'MFLOP in a step'],
    [String(operations.length), `operations, ${statistics.dispatches} of them dispatches of kernels`],
    [`${digits(arenaBytes / 1e6)} MB`, `in ${statistics.arenaBytes.length} arenas`],
    [`${digits(arenaBytes / bound)} ×`, `the lower bound of ${digits(bound / 1e6)} MB`],
    [measured ? `${digits(1000 * total)} ms` : '–', 'GPU time, profiled'],
    [digits(step.parameters / 1e3), 'thousand parameters'],
  ];
  const recomputed = step.choice.recompute ? [other, step] : [step, other];
  const kind = measured ? 'measured' : 'estimated';
  return (
    <>
      <dl class="glance">
        {glance.map(([number, text]) => (
          <div key={text}>
            <dd>{number}</dd>
            <dt>{text}</dt>
          </div>
        ))}
      </dl>
      <Figure
        title="The step, operation by operation, and its memory"
        unit={measured ? 'bars: GPU time' : 'bars: time estimated from FLOPs and bytes'}
        see="Forward fills the arenas with what backward needs, and backward empties them. Every rectangle is a tensor, from its first use to its last; the places of short-lived ones are used again and again."
      >
        <p class="small" style={{ minHeight: '2.6rem' }}>
          {measured
            ? `Measured: the mean of ${RUNS} runs, in which every dispatch has a pass of its own. Browsers round each time to 0.1 ms; copies and clears are not timed.`
            : 'Estimated: shares of the step tell, not times. '}
          {children}
        </p>
        <StepPicture {...{ step, times, axis, selected, tell, onSelect }} />
      </Figure>
      <OperationDetails
        {...{ step, selected, onSelect }}
        time={`${measured ? `${digits(1e6 * times[selected])} µs, ` : ''}${share(times[selected])} of the step, ${kind}`}
      />
      <Figure
        title="What recompute changes"
        see="Activation checkpointing keeps the inputs of each layer alone, and backward runs the layer again: less memory for more FLOPs."
      >
        <Table
          head={['', 'operations', 'MFLOP', 'arenas, MB', 'lower bound, MB']}
          rows={recomputed.map((own, i) => [
            `${i ? 'with' : 'without'} recompute${own === step ? ', shown here' : ''}`,
            String(own.operations.length),
            ...[own.flops, own.arenaBytes, own.statistics.lowerBoundBytes].map((number) => digits(number / 1e6)),
          ])}
        />
      </Figure>
      <Figure
        title="By kernel"
        unit={`${kind} times`}
        see="Where the work of the step lies. A name leads to the page of its kernel."
      >
        <Table
          head={['kernel and entry point', 'times', 'MFLOP', 'MB moved', 'share of the time']}
          rows={totalsByKernel(operations).map(({ operation, times: count, flops, bytes }) => [
            <KernelLink operation={operation} />,
            String(count),
            digits(flops / 1e6),
            digits(bytes / 1e6),
            share(times.reduce((sum, time, i) => sum + (operations[i].operation === operation ? time : 0), 0)),
          ])}
        />
      </Figure>
    </>
  );
}
