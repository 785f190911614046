import { useEffect, useMemo, useState } from 'preact/hooks';
import * as v from 'valibot';
import { count } from '../../../engine/files/json-schema.ts';
import { differencesFromParent } from '../../../model/inspect/system-tables.ts';
import { systemNamed } from '../../../model/systems/index.ts';
import { DEFAULT_SYSTEM } from '../../../model/training/recommended.ts';
import { spread } from '../../measure/statistics.ts';
import type { Adapter } from '../device.ts';
import { useLinked } from '../link.ts';
import { Choice, Field, Figure, Lines, Problem, Slider } from '../parts.tsx';
import { Acting } from './acting.tsx';
import { Edges } from './edges.tsx';
import { GradientMap } from './gradient-map.tsx';
import { Lab } from './lab.ts';
import { trainedSystem } from './live-run.ts';
import { Looks } from './looks.tsx';
import { World } from './world.ts';

/** Systems that differ in what reaches the backbone, and how. */
const systems = [
  'knowledge-insulation-robot-only',
  'joint-training-robot-only',
  'ki-expert-state',
  'pi0',
  'pi05',
  'frozen-backbone',
  'pi0-fast',
  'transfusion',
] as const;
const presets = ['tiny', 'nano'] as const;
const intervals = [0, 1, 5, 20, 100];

const side = v.object({
  system: v.picklist(systems),
  edges: v.record(v.string(), v.pipe(v.number(), v.minValue(0), v.maxValue(1))),
});
const schema = v.object({
  sides: v.pipe(v.array(side), v.minLength(1), v.maxLength(2)),
  preset: v.picklist(presets),
  seed: count(0, 2 ** 32),
  batch: count(1, 32),
  demonstrations: count(2, 128),
  every: v.picklist(intervals),
  acts: v.boolean(),
  scene: count(0, 2 ** 32),
});
type State = v.InferOutput<typeof schema>;

const initial: State = {
  sides: [{ system: 'knowledge-insulation-robot-only', edges: {} }],
  ...{ preset: 'tiny', seed: 0, batch: 16, demonstrations: 16, every: 20, acts: true, scene: 0 },
};

export function FlowSection({ adapter }: { adapter: Adapter }) {
  const { state, change, problem } = useLinked('flow', schema, {
    ...initial,
    // A step stays bearable without a GPU.
    ...(adapter.device.software && { batch: 4 }),
  });
  const world = useMemo(() => new World(), []);
  useEffect(() => () => world.end(), []);
  const [attempt, setAttempt] = useState(0);
  const [start, setStart] = useState<File | null>(null);
  const { sides, preset, seed, batch, demonstrations } = state;
  const number = (label: string, name: 'seed' | 'batch' | 'demonstrations', max: number, min = 0) => (
    <Slider label={label} value={state[name]} {...{ min, max }} onChange={(own) => change({ [name]: own })} />
  );
  const systemsChosen = sides.map(({ system }) => system);
  return (
    <>
      {problem && <Problem text={problem} />}
      <p>
        A small policy learns here, in this page, from demonstrations of a simulated robot that are made here, too. It
        is the training of <code>insula train</code>. Cut, open or scale an edge of its attention, and watch which
        weights each loss reaches from the next step on. Training rests while you look at another section.
      </p>
      <div class="controls">
        {sides.map((own, index) => (
          <Choice
            key={index}
            label={sides.length > 1 ? `System ${'AB'[index]}` : 'System'}
            value={own.system}
            options={systems}
            onChange={(system) => change({ sides: sides.with(index, { system, edges: {} }) })}
          />
        ))}
        <button
          type="button"
          onClick={() =>
            change({
              sides: sides.length > 1 ? [sides[0]] : [sides[0], { system: 'joint-training-robot-only', edges: {} }],
            })
          }
        >
          {sides.length > 1 ? 'Train one alone' : 'Train another beside it'}
        </button>
      </div>
      {[...new Set(systemsChosen)].map((name) => (
        <p key={name} class="small">
          {aboutSystem(name)}
        </p>
      ))}
      <div class="controls">
        <Choice
          label="Size"
          value={preset}
          options={[
            { value: 'tiny', text: 'tiny, from the shipped vision-language model' },
            { value: 'nano', text: 'nano, from random weights: quick, and learns nothing' },
          ]}
          onChange={(own) => change({ preset: own })}
        />
        <Field label="Begin from a file of insula pretrain (a link does not hold it)">
          <input
            type="file"
            accept=".safetensors"
            onChange={({ currentTarget }) => setStart(currentTarget.files?.[0] ?? null)}
          />
        </Field>
        {number('Examples in a batch', 'batch', 32, 1)}
        {number('Demonstrations to begin with', 'demonstrations', 128, 2)}
        {number('Seed', 'seed', 20)}
      </div>
      <Training
        key={JSON.stringify([
          systemsChosen,
          preset,
          seed,
          batch,
          demonstrations,
          start?.name,
          start?.lastModified,
          attempt,
        ])}
        {...{ adapter, world, state, start, change }}
        onReset={() => setAttempt(attempt + 1)}
      />
    </>
  );
}

function Training(props: {
  adapter: Adapter;
  world: World;
  state: State;
  start: File | null;
  change(part: Partial<State>): void;
  onReset(): void;
}) {
  const { state, change } = props;
  const { sides, every, acts, scene } = state;
  const [, setVersion] = useState(0);
  const watching = { edges: sides.map(({ edges }) => edges), every, acts, scene };
  const lab = useMemo(() => {
    const { preset, seed, batch, demonstrations } = state;
    const systems = sides.map(({ system }) => system);
    const settings = { systems, preset, start: props.start, seed, batch, demonstrations };
    return new Lab(props.adapter, props.world, settings, watching, () => setVersion((version) => version + 1));
  }, []);
  useEffect(() => () => lab.end(), []);
  lab.watching = watching;
  const two = sides.length > 1;
  const nameOf = (index: number) => (two ? `${'AB'[index]}: ${sides[index].system}` : sides[index].system);
  return (
    <>
      <div class="controls">
        <button type="button" class="main" onClick={() => (lab.running ? lab.pause() : lab.train())}>
          {lab.running ? 'Pause' : lab.done > 0 ? 'Go on' : 'Train'}
        </button>
        <button type="button" disabled={lab.running} onClick={() => lab.train(1)}>
          One step
        </button>
        <button type="button" disabled={lab.done === 0 && !lab.running} onClick={props.onReset}>
          Begin anew
        </button>
        <Choice
          label="Gradients are measured"
          value={String(every)}
          options={intervals.map((own) => ({
            value: String(own),
            text: own === 0 ? 'on demand' : own === 1 ? 'after every step' : `every ${own} steps`,
          }))}
          onChange={(own) => change({ every: Number(own) })}
        />
        <button type="button" onClick={() => lab.measure(true)} disabled={lab.running || lab.status !== null}>
          Measure now, and explain zeros
        </button>
      </div>
      <p class="flow-status" aria-live="polite">
        {lab.status ?? (lab.done === 0 ? 'Nothing is trained yet.' : statusOf(lab))}
      </p>
      {lab.problem && <Problem text={lab.problem} again={() => lab.train()} />}
      <div class="row">
        <div>
          <Losses {...{ lab, two }} />
        </div>
        <Acting {...{ lab, acts, scene, nameOf, change }} />
      </div>
      {lab.sides.map((side, index) => (
        <section key={index}>
          {two && <h2>{nameOf(index)}</h2>}
          <div class="row flow-maps">
            <Edges
              system={trainedSystem(sides[index].system)}
              factors={sides[index].edges}
              changed={side.changed}
              onChange={(edges) => change({ sides: sides.with(index, { ...sides[index], edges }) })}
            />
            <GradientMap gradients={side.gradients} />
          </div>
        </section>
      ))}
      <Looks {...{ lab, nameOf }} />
    </>
  );
}

/** At most 500 of the steps, evenly spaced, each with its number from 1. */
function thinned<Own>(steps: readonly Own[]): (readonly [number, Own])[] {
  const stride = Math.ceil(steps.length / 500);
  return steps.map((own, i) => [i + 1, own] as const).filter(([step]) => step % stride === 0);
}

/** A figure for each loss, with a line for each side. */
function Losses({ lab, two }: { lab: Lab; two: boolean }) {
  const objectives = lab.sides.flatMap(({ run }) => run?.model.objectives ?? []);
  const meanings = new Map(objectives.map(({ name, meaning }) => [name, meaning]));
  if (lab.done === 0)
    return (
      <Figure title="Losses of each training step" see="A line for each loss falls as the policy learns.">
        <p class="flow-later flow-curves">Nothing is trained yet.</p>
      </Figure>
    );
  return (
    <>
      {[...meanings].map(([name, meaning]) => (
        <Figure key={name} title={`The ${name} loss of each training step`} see={`It is the ${meaning}.`}>
          <Lines
            label={`The ${name} loss over training steps`}
            x="training step"
            y={`${name} loss`}
            series={lab.sides.map(({ run }, index) => ({
              name: two ? (index > 0 ? 'B (dashed)' : 'A') : name,
              colour: `line${index + 1}`,
              dashed: index > 0,
              points: thinned(run?.losses ?? []).flatMap(([step, own]) =>
                name in own ? [[step, own[name]] as const] : [],
              ),
            }))}
          />
        </Figure>
      ))}
      <p class="small flow-losses">
        {lab.sides.map(({ run }, index) => (
          <span key={index}>
            {two && `${'AB'[index]}: `}
            {run && run.done > 0
              ? `after step ${run.done}: ${Object.entries(run.losses[run.done - 1])
                  .map(([name, value]) => `${name} ${value.toPrecision(5)}`)
                  .join(', ')}. `
              : ''}
          </span>
        ))}
      </p>
    </>
  );
}

function statusOf({ done, seconds, demonstrations }: Lab): string {
  const { median } = spread(seconds.slice(1).slice(-20));
  const pace =
    done === 1
      ? `it took ${seconds[0].toPrecision(2)} s, since kernels that run for the first time are compiled`
      : `the last ones took ${median.toPrecision(2)} s each (${(1 / median).toPrecision(2)} steps a second)`;
  return `Step ${done}: ${pace}; ${demonstrations} demonstrations.`;
}

/** A system in words: its own, and how it differs from its parent. */
function aboutSystem(name: string): string {
  const system = systemNamed(name);
  const differences = differencesFromParent(system).map(({ words }) => words);
  return [
    `${name}: ${system.description}.`,
    ...(differences.length > 0 ? [`Differences from ${system.parent}: ${differences.join('; ')}.`] : []),
    ...(name === DEFAULT_SYSTEM ? ['It is what insula train trains by default in the built-in world.'] : []),
  ].join(' ');
}
