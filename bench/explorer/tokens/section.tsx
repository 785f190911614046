import type { Adapter } from '../device.ts';

export function TokensSection({ adapter }: { adapter: Adapter }) {
  return <p>{adapter.device.description}</p>;
}
