//! Shaders that WGSL has no words for, in SPIR-V.

/// Words of a module.
struct Module(Vec<u32>);

/// Opcodes, named as in the specification.
mod op {
    pub(super) const MEMORY_MODEL: u32 = 14;
    pub(super) const ENTRY_POINT: u32 = 15;
    pub(super) const EXECUTION_MODE: u32 = 16;
    pub(super) const CAPABILITY: u32 = 17;
    pub(super) const TYPE_VOID: u32 = 19;
    pub(super) const TYPE_INT: u32 = 21;
    pub(super) const TYPE_VECTOR: u32 = 23;
    pub(super) const TYPE_IMAGE: u32 = 25;
    pub(super) const TYPE_SAMPLED_IMAGE: u32 = 27;
    pub(super) const TYPE_POINTER: u32 = 32;
    pub(super) const TYPE_FUNCTION: u32 = 33;
    pub(super) const CONSTANT: u32 = 43;
    pub(super) const CONSTANT_COMPOSITE: u32 = 44;
    pub(super) const FUNCTION: u32 = 54;
    pub(super) const FUNCTION_END: u32 = 56;
    pub(super) const VARIABLE: u32 = 59;
    pub(super) const LOAD: u32 = 61;
    pub(super) const ACCESS_CHAIN: u32 = 65;
    pub(super) const DECORATE: u32 = 71;
    pub(super) const IMAGE_FETCH: u32 = 95;
    pub(super) const IMAGE_WRITE: u32 = 99;
    pub(super) const IMAGE: u32 = 100;
    pub(super) const BITCAST: u32 = 124;
    pub(super) const I_ADD: u32 = 128;
    pub(super) const LABEL: u32 = 248;
    pub(super) const RETURN: u32 = 253;
}

const GLOBAL_INVOCATION_ID: u32 = 28;
const BUILT_IN: u32 = 11;
const LOCATION: u32 = 30;
const BINDING: u32 = 33;
const DESCRIPTOR_SET: u32 = 34;

/// "main", as words.
const MAIN: [u32; 2] = [u32::from_le_bytes(*b"main"), 0];

/// The words before the first instruction.
const HEADER: usize = 5;

impl Module {
    fn new(bound: u32) -> Self {
        Self(vec![0x0723_0203, 0x0001_0000, 0, bound, 0])
    }

    fn add(mut self, opcode: u32, operands: &[u32]) -> Self {
        self.push(opcode, operands);
        self
    }

    fn push(&mut self, opcode: u32, operands: &[u32]) {
        let words = u32::try_from(operands.len() + 1).expect("an instruction is short");
        self.0.push(words << 16 | opcode);
        self.0.extend(operands);
    }
}

/// For texel buffers of R32_UINT: `output[i] = input[i] + 1`, 64 of them a workgroup.
pub(crate) fn texel_adder() -> Vec<u32> {
    let [void, function, int, uint, three, four, to_three, to_uint] = [1, 2, 3, 4, 5, 6, 7, 8];
    let [sampled, combined, to_combined, storage, to_storage] = [9, 10, 11, 12, 13];
    let [id, input, output, zero, one, ones] = [14, 15, 16, 17, 18, 19];
    let [main, label, place, loaded, index, target, source, image, texel, sum] =
        [20, 21, 22, 23, 24, 25, 26, 27, 28, 29];
    // Storage classes.
    let (constant, from_stage) = (0, 1);
    // Dimensions and formats of images.
    let (buffer, unknown, r32_uint) = (5, 0, 33);
    Module::new(30)
        // Shader, SampledBuffer, ImageBuffer.
        .add(op::CAPABILITY, &[1])
        .add(op::CAPABILITY, &[46])
        .add(op::CAPABILITY, &[47])
        .add(op::MEMORY_MODEL, &[0, 1])
        .add(op::ENTRY_POINT, &[5, main, MAIN[0], MAIN[1], id])
        .add(op::EXECUTION_MODE, &[main, 17, 64, 1, 1])
        .add(op::DECORATE, &[id, BUILT_IN, GLOBAL_INVOCATION_ID])
        .add(op::DECORATE, &[input, DESCRIPTOR_SET, 0])
        .add(op::DECORATE, &[input, BINDING, 0])
        .add(op::DECORATE, &[output, DESCRIPTOR_SET, 0])
        .add(op::DECORATE, &[output, BINDING, 1])
        .add(op::TYPE_VOID, &[void])
        .add(op::TYPE_FUNCTION, &[function, void])
        .add(op::TYPE_INT, &[int, 32, 1])
        .add(op::TYPE_INT, &[uint, 32, 0])
        .add(op::TYPE_VECTOR, &[three, uint, 3])
        .add(op::TYPE_VECTOR, &[four, uint, 4])
        .add(op::TYPE_POINTER, &[to_three, from_stage, three])
        .add(op::TYPE_POINTER, &[to_uint, from_stage, uint])
        .add(op::TYPE_IMAGE, &[sampled, uint, buffer, 0, 0, 0, 1, unknown])
        .add(op::TYPE_SAMPLED_IMAGE, &[combined, sampled])
        .add(op::TYPE_POINTER, &[to_combined, constant, combined])
        .add(op::TYPE_IMAGE, &[storage, uint, buffer, 0, 0, 0, 2, r32_uint])
        .add(op::TYPE_POINTER, &[to_storage, constant, storage])
        .add(op::VARIABLE, &[to_three, id, from_stage])
        .add(op::VARIABLE, &[to_combined, input, constant])
        .add(op::VARIABLE, &[to_storage, output, constant])
        .add(op::CONSTANT, &[uint, zero, 0])
        .add(op::CONSTANT, &[uint, one, 1])
        .add(op::CONSTANT_COMPOSITE, &[four, ones, one, one, one, one])
        .add(op::FUNCTION, &[void, main, 0, function])
        .add(op::LABEL, &[label])
        .add(op::ACCESS_CHAIN, &[to_uint, place, id, zero])
        .add(op::LOAD, &[uint, loaded, place])
        .add(op::BITCAST, &[int, index, loaded])
        .add(op::LOAD, &[storage, target, output])
        .add(op::LOAD, &[combined, source, input])
        .add(op::IMAGE, &[sampled, image, source])
        .add(op::IMAGE_FETCH, &[four, texel, image, index])
        .add(op::I_ADD, &[four, sum, texel, ones])
        .add(op::IMAGE_WRITE, &[target, index, sum])
        .add(op::RETURN, &[])
        .add(op::FUNCTION_END, &[])
        .0
}

/// Has a vertex shader's only output of a location, of four bytes, captured by transform feedback.
pub(crate) fn captured(shader: &[u32]) -> Vec<u32> {
    let (capability, execution_mode) = (53, 11);
    let (xfb_buffer, xfb_stride, offset) = (36, 37, 35);
    let mut module = Module(shader[..HEADER].to_vec());
    module.push(op::CAPABILITY, &[capability]);
    let mut rest = &shader[HEADER..];
    while let Some(first) = rest.first() {
        let (instruction, after) = rest.split_at((first >> 16) as usize);
        module.0.extend(instruction);
        match (first & 0xffff, instruction) {
            (op::ENTRY_POINT, [_, _, entry, ..]) => {
                module.push(op::EXECUTION_MODE, &[*entry, execution_mode])
            }
            (op::DECORATE, [_, variable, LOCATION, _]) => {
                for (decoration, value) in [(xfb_buffer, 0), (xfb_stride, 4), (offset, 0)] {
                    module.push(op::DECORATE, &[*variable, decoration, value]);
                }
            }
            _ => {}
        }
        rest = after;
    }
    module.0
}
