/** `insula inspect --gradients` and `--interference`. */
import { InputError } from '../engine/index.ts';
import { gradientFlow } from '../model/inspect/gradient-flow.ts';
import { interference as measureInterference } from '../model/inspect/interference.ts';
import { flowFinding, interferenceFindings } from '../model/report/flow-figure.ts';
import type { Inspected, SubjectValues } from './inspect-subject.ts';
import type { Measurement } from './measurement.ts';
import { decimal, type ValuesOf } from './options.ts';

export const gradients = {
  help: 'the norm of the gradient that each loss sends to each layer of each group of parameters, and why it is exactly 0 where it is',
  async measure({ model, inputs }) {
    const flow = await gradientFlow(model, inputs);
    return { json: { ...flow }, findings: [flowFinding(flow)] };
  },
} satisfies Measurement;

const options = {
  scale: decimal('the factor of the gradient on scaled edges; 0.3 by default', {
    ...{ above: 0, below: 1 },
    needs: 'interference',
  }),
};

export const interference = {
  help: "cosine and norm ratio between the losses' gradients in each layer: with the edges as they are, open, scaled and cut",
  options,
  async measure({ model, inputs, system }: Inspected, { scale = 0.3 }: SubjectValues & ValuesOf<typeof options>) {
    if (model.objectives.length === 1)
      throw new InputError(
        `--interference: ${system} has one loss, ${model.objectives[0].name}; choose another --system`,
      );
    const result = await measureInterference(model, inputs, { factors: [1, scale, 0] });
    return { json: { ...result }, findings: interferenceFindings(result) };
  },
} satisfies Measurement;
