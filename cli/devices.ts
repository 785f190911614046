/** `insula devices`: the adapters that can be opened, and why others cannot. */
import { type AdapterReport, installAdvice, listAdapters } from '../engine/index.ts';
import { command } from './command.ts';

export const devices = command({
  options: {},
  async run() {
    const adapters = await listAdapters();
    const opened = adapters.some((adapter) => adapter.opens);
    return { json: { adapters }, lines: deviceLines(adapters), status: opened ? 0 : 1 };
  },
});

function deviceLines(adapters: readonly AdapterReport[]): string[] {
  const lines = adapters.flatMap((adapter) => {
    if (!adapter.opens) return [`${adapter.name} (${adapter.backend}): cannot be opened: ${adapter.reason}`];
    const { name, backend, description, software, isDefault, features, limits, subgroupSizes } = adapter;
    const kind = [software ? 'software adapter' : null, isDefault ? 'default' : null].filter((part) => part !== null);
    return [
      `${name} (${backend}${kind.length > 0 ? `, ${kind.join(', ')}` : ''})`,
      `  ${description}`,
      `  features: ${features.join(', ')}`,
      `  limits: ${Object.entries(limits)
        .map(([limit, value]) => `${limit} ${value}`)
        .join(', ')}`,
      ...(subgroupSizes ? [`  subgroups: ${subgroupSizes.join(' to ')} lanes`] : []),
    ];
  });
  return adapters.some((adapter) => adapter.opens) ? lines : [...lines, installAdvice()];
}
