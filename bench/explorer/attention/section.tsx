import type { Adapter } from '../device.ts';

export function AttentionSection({ adapter }: { adapter: Adapter }) {
  return <p>{adapter.device.description}</p>;
}
