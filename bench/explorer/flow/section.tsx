import type { Adapter } from '../device.ts';

export function FlowSection({ adapter }: { adapter: Adapter }) {
  return <p>{adapter.device.description}</p>;
}
