import type { Adapter } from '../device.ts';

export function KernelsSection({ adapter }: { adapter: Adapter }) {
  return <p>{adapter.device.description}</p>;
}
