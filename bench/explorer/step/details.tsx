import { digits } from '../../measure/table.ts';
import { linkTo } from '../link.ts';
import { Figure, Table } from '../parts.tsx';
import type { ListedStep } from './capture.ts';

/** The name of an operation, with a link to the page of its kernel if it has one. */
export function KernelLink({ operation }: { operation: string }) {
  const [kernel, entry] = operation.split(' ');
  if (entry === undefined) return <>{operation}</>;
  return (
    <>
      <a href={linkTo('kernels', { kernel })}>{kernel}</a> {entry}
    </>
  );
}

export function OperationDetails(props: {
  step: ListedStep;
  selected: number;
  /** Its time and share, in words. */
  time: string;
  onSelect(operation: number): void;
}) {
  const { selected, time, onSelect } = props;
  const { operations, tensors } = props.step;
  const { operation, phase, parameters = {}, grid, flops = 0, bytes, bindings } = operations[selected];
  const constants = Object.entries(parameters).map(([name, value]) =>
    typeof value === 'number' ? `${name} = ${value}` : name,
  );
  const facts = {
    Kernel: <KernelLink operation={operation} />,
    'Part of the step': phase,
    Workgroups: grid ? grid.join(' × ') : 'none: no kernel runs',
    'Constants and variants': constants.join(', ') || 'none',
    Work: `${digits(flops / 1e6)} MFLOP, ${digits(bytes / 1e3)} KB moved`,
    Time: time,
  };
  return (
    <Figure
      title={`Operation ${selected + 1} of ${operations.length}`}
      see="Select another in the picture, with the arrow keys there, or here."
    >
      <div class="controls">
        <button type="button" disabled={selected === 0} onClick={() => onSelect(selected - 1)}>
          Previous
        </button>
        <button type="button" disabled={selected === operations.length - 1} onClick={() => onSelect(selected + 1)}>
          Next
        </button>
      </div>
      <div class="row step-operation">
        <dl class="facts">
          {Object.entries(facts).map(([name, fact]) => [<dt key={name}>{name}</dt>, <dd key={`${name}:`}>{fact}</dd>])}
        </dl>
        <Table
          head={['binding', 'KB', 'made by', 'lies in', 'used by operations']}
          rows={bindings.map(({ name, access, bytes, tensor, arena, offset, allocation }) => [
            `${access === 'read' ? 'reads' : 'writes'} ${name}`,
            digits(bytes / 1e3),
            tensor,
            arena === undefined ? 'a buffer of its own' : `arena ${arena}, byte ${offset}`,
            allocation === undefined ? '' : `${tensors[allocation].first + 1} to ${tensors[allocation].last + 1}`,
          ])}
        />
      </div>
    </Figure>
  );
}
