/** Settings of parameters by group or name: rates, freezing, initial gates. */
import { InputError, quote } from '../../engine/files/errors.ts';
import { isLike } from '../../engine/files/nearest.ts';
import type { ParameterRule } from './configuration.ts';
import type { ModelParameter } from './layers.ts';

const GATES = /\.dense\.bias$/;

/**
 * The parameters with the rules that match them; the last one that says something decides.
 *
 * @throws InputError if a rule matches nothing
 */
export function withRules(parameters: readonly ModelParameter[], rules: readonly ParameterRule[]): ModelParameter[] {
  let ruled = [...parameters];
  for (const { match, rate, frozen, gateBias } of rules) {
    const matches = matcherOf(match);
    const chosen = ruled.filter(matches).filter(({ name }) => gateBias === undefined || GATES.test(name));
    if (chosen.length === 0)
      throw new InputError(
        `${quote(match)} matches no parameter${gateBias === undefined ? '' : ' with a gate'}; the groups are ${groupsOf(parameters).join(', ')}`,
      );
    const own = { ...(rate !== undefined && { rate }), ...(frozen !== undefined && { frozen }) };
    ruled = ruled.map((parameter) => {
      if (!matches(parameter)) return parameter;
      return { ...parameter, ...own, ...(gateBias !== undefined && GATES.test(parameter.name) && { gateBias }) };
    });
  }
  return ruled;
}

/** Names of the groups in their order. */
export const groupsOf = (parameters: readonly ModelParameter[]): string[] => [
  ...new Set(parameters.map(({ group }) => group)),
];

/** Whether a parameter's group has this name, or its own name fits the pattern. */
export function matcherOf(match: string): (parameter: ModelParameter) => boolean {
  return ({ name, group }) => group === match || isLike(match, name);
}
