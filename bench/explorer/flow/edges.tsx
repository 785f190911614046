import { useState } from 'preact/hooks';
import type { System } from '../../../model/systems/index.ts';
import { type Cell, Figure, Matrix, Slider } from '../parts.tsx';
import { type EdgeFactors, edgeName } from './live-run.ts';

/** What the blocks hold whose names do not say it. */
const meanings = {
  subtask: 'the places of things, which the policy says before it acts',
  target: 'action tokens',
  numbers: 'the same places, and the state',
  action: 'the chunk on its way from noise',
};

/** The attention table with the factors of the gradient; those that differ from the system's own are `factors`. */
export function Edges(props: {
  system: System;
  factors: EdgeFactors;
  changed: { readonly step: number; readonly milliseconds: number } | null;
  onChange(factors: EdgeFactors): void;
}) {
  const { system, factors, changed, onChange } = props;
  const [chosen, setChosen] = useState<string | null>(null);
  const names = system.blocks.map(({ name }) => name);
  const ownFactor = (query: string, key: string) => system.attention[query]?.[key]?.keyGradient ?? null;
  const factorOf = (query: string, key: string) => factors[edgeName(query, key)] ?? ownFactor(query, key);
  const set = (edge: string, factor: number) => {
    setChosen(edge);
    const [query, key] = edge.split('/');
    const { [edge]: _, ...others } = factors;
    onChange(factor === ownFactor(query, key) ? others : { ...others, [edge]: factor });
  };
  const cell = (query: string, key: string): Cell | null => {
    const factor = factorOf(query, key);
    if (factor === null) return { text: 'no edge', title: `${query} does not read ${key}` };
    const edge = edgeName(query, key);
    return {
      text: factor === 0 ? 'cut' : factor === 1 ? 'open' : factor.toFixed(2),
      shade: factor,
      marked: edge === chosen,
      hatched: factor === 0,
      title: `${query} reads ${key}: ${Math.round(100 * factor)} % of the gradient passes${edge in factors ? ', by your change' : ''}. ${factor === 0 ? 'Open it' : 'Cut it'}`,
      onClick: () => set(edge, factor === 0 ? 1 : 0),
      onFocus: () => setChosen(edge),
    };
  };
  const [query, key] = chosen?.split('/') ?? [];
  const factor = chosen === null ? null : factorOf(query, key);
  return (
    <Figure
      title="Who reads whom, and whether gradient passes back"
      see="Rows read columns. A click cuts the gradient of an edge (cut), or lets it pass (open); the forward pass stays as it is. No edge: no attention at all."
    >
      <Matrix label="Attention edges" rows={names} columns={names} cell={cell} />
      <p class="small">
        {names
          .flatMap((name) => (name in meanings ? [`${name}: ${meanings[name as keyof typeof meanings]}`] : []))
          .join('; ')}
        .
      </p>
      <div class="controls">
        <Slider
          label={chosen === null ? 'Gradient through an edge (choose one above)' : `Gradient from ${query} into ${key}`}
          text={factor === null ? '–' : `${Math.round(100 * factor)} %`}
          value={factor ?? 0}
          disabled={factor === null}
          {...{ min: 0, max: 1, step: 0.05 }}
          onChange={(own) => chosen !== null && set(chosen, own)}
        />
        <button type="button" disabled={Object.keys(factors).length === 0} onClick={() => onChange({})}>
          The system's own edges
        </button>
      </div>
      <p class="small flow-changed">
        {changed &&
          `Changed after step ${changed.step}: the step was captured anew on the same weights in ${(changed.milliseconds / 1000).toPrecision(2)} s, and training went on.`}
      </p>
    </Figure>
  );
}
