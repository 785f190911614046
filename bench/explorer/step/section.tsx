import type { ComponentChildren } from 'preact';
import { useEffect, useMemo, useState } from 'preact/hooks';
import * as v from 'valibot';
import { arenaTensors, totalsByKernel } from '../../../model/inspect/step-reading.ts';
import { formatPercent } from '../../../model/report/markup.ts';
import { digits } from '../../measure/table.ts';
import type { Adapter } from '../device.ts';
import { useLinked } from '../link.ts';
import { Choice, Figure, Problem, Slider, useWork } from '../parts.tsx';
import { Table } from '../table.tsx';
import { estimatedTimes, type ListedStep, listedStep, measuredTimes, RUNS, stepSystems } from './capture.ts';
import { KernelLink, OperationDetails } from './details.tsx';
import { type Axis, StepPicture } from './picture.tsx';

const integer = (low: number, high: number) => v.pipe(v.number(), v.integer(), v.minValue(low), v.maxValue(high));
const presets = ['nano', 'tiny', 'small'] as const;
const axes = [
  { value: 'order', text: 'order' },
  { value: 'time', text: 'time' },
] as const;
const schema = v.object({
  system: v.picklist(stepSystems),
  preset: v.picklist(presets),
  batch: integer(1, 16),
  depth: integer(1, 6),
  recompute: v.boolean(),
  axis: v.picklist(['order', 'time']),
  /** The selected operation, from 0; null for that with the most work. */
  selected: v.nullable(integer(0, 1e5)),
});
const initial: v.InferOutput<typeof schema> = {
  ...{ system: 'knowledge-insulation', preset: 'tiny', batch: 2, depth: 2, recompute: false },
  ...{ axis: 'order', selected: null },
};

interface Shown {
  /** The settings that it was made for, as text. */
  readonly key: string;
  readonly step: ListedStep;
  /** The same step with the other setting of `recompute`. */
  readonly other: ListedStep;
  readonly recompute: boolean;
  /** The operation with the most FLOPs. */
  readonly busiest: number;
  /** Seconds of each operation. */
  readonly times: readonly number[];
  readonly measured: boolean;
}

export function StepSection({ adapter }: { adapter: Adapter }) {
  const { state, change, problem } = useLinked('step', schema, initial);
  const { system, preset, batch, depth, recompute, axis } = state;
  const [shown, setShown] = useState<Shown | null>(null);
  const work = useWork(adapter);
  const timed = adapter.device.features.has('timestamp-query');
  const key = JSON.stringify({ system, preset, batch, depth, recompute });
  const capture = (measure: boolean) =>
    work.run(async (device, signal) => {
      const choice = { system, preset, batch, depth, recompute };
      const step = listedStep(device, choice);
      await new Promise((done) => setTimeout(done));
      const other = listedStep(device, { ...choice, recompute: !recompute });
      signal.throwIfAborted();
      const flops = step.operations.map(({ flops = 0 }) => flops);
      const found = { key, step, other, recompute, busiest: flops.indexOf(Math.max(...flops)) };
      setShown({ ...found, times: estimatedTimes(device, step.operations), measured: false });
      if (!measure) return;
      const times = await measuredTimes(device, choice, signal);
      signal.throwIfAborted();
      setShown({ ...found, times, measured: true });
    });
  useEffect(() => {
    void capture(timed && !adapter.device.software);
  }, [key]);
  const resize = (part: Partial<typeof state>) => change({ ...part, selected: null });
  const current = shown?.key === key;
  return (
    <>
      {problem && <Problem text={problem} />}
      <div class="controls">
        <Choice label="System" value={system} options={stepSystems} onChange={(system) => resize({ system })} />
        <Choice label="Sizes" value={preset} options={presets} onChange={(preset) => resize({ preset })} />
        <Slider label="Batch" value={batch} min={1} max={16} onChange={(batch) => resize({ batch })} />
        <Slider label="Layers" value={depth} min={1} max={6} onChange={(depth) => resize({ depth })} />
        <Choice label="Along the axis" value={axis} options={axes} onChange={(axis) => change({ axis })} />
        <label class="step-check">
          <input
            type="checkbox"
            checked={recompute}
            onChange={({ currentTarget }) => resize({ recompute: currentTarget.checked })}
          />{' '}
          recompute (activation checkpointing)
        </label>
      </div>
      {work.problem && <Problem text={work.problem} />}
      <div class={current ? 'step-shown' : 'step-shown busy'}>
        {shown ? (
          <ShownStep
            shown={shown}
            axis={axis}
            selected={Math.min(state.selected ?? shown.busiest, shown.step.operations.length - 1)}
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

function ShownStep(props: {
  shown: Shown;
  axis: Axis;
  selected: number;
  onSelect(operation: number): void;
  /** What can be done about the times. */
  children: ComponentChildren;
}) {
  const { axis, selected, onSelect, children } = props;
  const { step, other, recompute, times, measured } = props.shown;
  const { operations, statistics, parameters, flops, arenaBytes } = step;
  const tensors = useMemo(() => arenaTensors(operations), [operations]);
  const total = times.reduce((sum, time) => sum + time, 0) || 1;
  const share = (time: number) => formatPercent(time / total, 1);
  const tell = (index: number) => {
    const { operation, phase, flops = 0 } = operations[index];
    return `${index + 1} of ${operations.length}: ${operation}, ${phase}, ${digits(flops / 1e6)} MFLOP, ${share(times[index])} of the step`;
  };
  const glance = [
    [digits(flops / 1e6), 'MFLOP in a step'],
    [String(operations.length), `operations, ${statistics.dispatches} of them dispatches of kernels`],
    [`${digits(arenaBytes / 1e6)} MB`, `in ${statistics.arenaBytes.length} arenas`],
    [
      `${digits(arenaBytes / statistics.lowerBoundBytes)} ×`,
      `the lower bound of ${digits(statistics.lowerBoundBytes / 1e6)} MB`,
    ],
    [measured ? `${digits(1000 * total)} ms` : '–', 'GPU time, profiled'],
    [digits(parameters / 1e3), 'thousand parameters'],
  ];
  const [without, with_] = recompute ? [other, step] : [step, other];
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
        <p class="small step-times">
          {measured
            ? `Measured: the mean of ${RUNS} runs, in which every dispatch has a pass of its own. Browsers round each time to 0.1 ms; copies and clears are not timed.`
            : 'Estimated: shares of the step tell, not times. '}
          {children}
        </p>
        <StepPicture
          {...{ operations, tensors, times, axis, selected, tell, onSelect }}
          arenaBytes={statistics.arenaBytes}
          lowerBoundBytes={statistics.lowerBoundBytes}
        />
      </Figure>
      <OperationDetails
        {...{ operations, tensors, selected, onSelect }}
        time={`${measured ? `${digits(1e6 * times[selected])} µs, ` : ''}${share(times[selected])} of the step${measured ? '' : ', estimated'}`}
      />
      <Figure
        title="What recompute changes"
        see="Activation checkpointing keeps the inputs of each layer alone, and backward runs the layer again: less memory for more FLOPs."
      >
        <Table
          head={['', 'operations', 'MFLOP', 'arenas, MB', 'lower bound, MB']}
          rows={[without, with_].map((own, i) => [
            `${i ? 'with' : 'without'} recompute${own === step ? ', shown here' : ''}`,
            String(own.operations.length),
            digits(own.flops / 1e6),
            digits(own.arenaBytes / 1e6),
            digits(own.statistics.lowerBoundBytes / 1e6),
          ])}
        />
      </Figure>
      <Figure
        title="By kernel"
        unit={measured ? 'measured times' : 'estimated times'}
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
