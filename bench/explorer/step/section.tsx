import type { Adapter } from '../device.ts';

export function StepSection({ adapter }: { adapter: Adapter }) {
  return <p>{adapter.device.description}</p>;
}
