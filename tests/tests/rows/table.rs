//! Every command that Tidemark intercepts, with what shows that it must be.

/// What shows that a command is intercepted, and that it must be.
#[derive(Clone, Copy)]
pub enum Sign {
    /// A check fails when the command is passed through, and says this of it.
    Fails(&'static str),
    /// Over the mock of this shape a check fails likewise.
    FailsOver(&'static str, &'static str),
    /// Where copies go by the application's own queue, a check fails likewise.
    FailsStaged(&'static str),
    /// Over the mock of this shape the command, passed through, breaks Vulkan's rules, with these words of the mock.
    Misuse(&'static str, &'static str),
    /// After a check that destroys all it makes, Tidemark's log tells that the device goes with such objects left.
    Leaves(&'static str),
    /// After a check that empties its pools, Tidemark's log tells that one goes with such objects in it.
    Holds(&'static str),
    /// A check passes all the same, but more than this many bytes are flushed.
    Flushes(u64),
    /// A [`probe`](crate::probe) of the driver itself, without the loader.
    Probe,
}
use Sign::{Fails, FailsOver, FailsStaged, Flushes, Holds, Leaves, Misuse, Probe};

/// A command.
pub struct Row {
    /// By all its names.
    pub names: &'static [&'static str],
    /// The check, one of `coherency-checks`, that passes on Tidemark; none for probes.
    pub check: &'static str,
    pub sign: Sign,
    /// What is passed through in any case, since it would make up for the command.
    pub beside: &'static [&'static str],
}

const fn row(names: &'static [&'static str], check: &'static str, sign: Sign) -> Row {
    Row { names, check, sign, beside: &[] }
}

const fn beside(
    names: &'static [&'static str],
    check: &'static str,
    sign: Sign,
    beside: &'static [&'static str],
) -> Row {
    Row { names, check, sign, beside }
}

/// A byte or word is not what it should be.
const BYTE: Sign = Fails("byte ");
const WORD: Sign = Fails("word ");
const PROBE: &str = "";

/// Names that lavapipe of Mesa 22.3, Debian 12's, does not have, while that of Mesa 25 does: a check may be skipped.
pub const NEWER: &[&str] = &[
    "vkMapMemory2",
    "vkMapMemory2KHR",
    "vkUnmapMemory2",
    "vkUnmapMemory2KHR",
    "vkCopyMemoryToImage",
    "vkCopyMemoryToImageEXT",
    "vkCopyImageToMemory",
    "vkCopyImageToMemoryEXT",
    "vkCopyImageToImage",
    "vkCopyImageToImageEXT",
    "vkTransitionImageLayout",
    "vkTransitionImageLayoutEXT",
    "vkCmdBindIndexBuffer2",
    "vkCmdBindIndexBuffer2KHR",
    "vkCmdDrawMeshTasksIndirectEXT",
    "vkCmdDrawMeshTasksIndirectCountEXT",
    "vkCmdBindDescriptorSets2",
    "vkCmdBindDescriptorSets2KHR",
    "vkCmdPushDescriptorSet",
    "vkCmdPushDescriptorSet2",
    "vkCmdPushDescriptorSet2KHR",
    "vkCmdPushDescriptorSetWithTemplate",
    "vkCmdPushDescriptorSetWithTemplate2",
    "vkCmdPushDescriptorSetWithTemplate2KHR",
    "vkGetMemoryFdPropertiesKHR",
    "vkQueueBindSparse",
    "vkQueuePresentKHR",
    "vkAcquireNextImageKHR",
    "vkAcquireNextImage2KHR",
    "vkWaitForPresentKHR",
    "vkWaitForPresent2KHR",
];

/// Names of extensions that neither has, so that the mock claims to.
pub const CLAIMED: &[(&str, &str)] = &[
    ("vkEnumerateDeviceExtensionProperties", "VK_NV_ray_tracing"),
    ("vkGetPhysicalDeviceFeatures2", "VK_EXT_opacity_micromap"),
    ("vkGetPhysicalDeviceFeatures2KHR", "VK_EXT_opacity_micromap"),
    ("vkCmdDrawIndirectCountAMD", "VK_AMD_draw_indirect_count"),
    ("vkCmdDrawIndexedIndirectCountAMD", "VK_AMD_draw_indirect_count"),
    ("vkWaitForPresentKHR", "VK_KHR_present_id,VK_KHR_present_wait"),
    ("vkWaitForPresent2KHR", "VK_KHR_present_id2,VK_KHR_present_wait2"),
    ("vkCreateFence", "VK_KHR_external_fence_fd"),
    ("vkGetFenceFdKHR", "VK_KHR_external_fence_fd"),
    ("vkCreateSemaphore", "VK_KHR_external_semaphore_fd"),
    ("vkGetSemaphoreFdKHR", "VK_KHR_external_semaphore_fd"),
    ("vkImportFenceFdKHR", "VK_KHR_external_fence_fd"),
    ("vkImportSemaphoreFdKHR", "VK_KHR_external_semaphore_fd"),
];

pub const ROWS: &[Row] = &[
    row(&["vkCreateInstance"], "queue-submit", Fails("vkEnumeratePhysicalDevices returned")),
    row(&["vkEnumerateInstanceExtensionProperties"], PROBE, Probe),
    row(&["vkEnumerateInstanceVersion"], PROBE, Probe),
    row(&["vkDestroyInstance"], PROBE, Probe),
    row(
        &["vkEnumeratePhysicalDevices"],
        "queue-submit",
        Fails("vkEnumerateDeviceExtensionProperties returned"),
    ),
    row(&["vkEnumeratePhysicalDeviceGroups", "vkEnumeratePhysicalDeviceGroupsKHR"], PROBE, Probe),
    row(&["vkGetPhysicalDeviceProperties"], PROBE, Probe),
    row(&["vkGetPhysicalDeviceProperties2", "vkGetPhysicalDeviceProperties2KHR"], PROBE, Probe),
    row(&["vkGetPhysicalDeviceFeatures2", "vkGetPhysicalDeviceFeatures2KHR"], PROBE, Probe),
    row(&["vkGetPhysicalDeviceMemoryProperties"], PROBE, Probe),
    row(&["vkGetPhysicalDeviceMemoryProperties2", "vkGetPhysicalDeviceMemoryProperties2KHR"], PROBE, Probe),
    row(
        &["vkGetPhysicalDeviceExternalBufferProperties", "vkGetPhysicalDeviceExternalBufferPropertiesKHR"],
        PROBE,
        Probe,
    ),
    row(
        &["vkGetPhysicalDeviceImageFormatProperties2", "vkGetPhysicalDeviceImageFormatProperties2KHR"],
        PROBE,
        Probe,
    ),
    row(&["vkEnumerateDeviceExtensionProperties"], PROBE, Probe),
    row(&["vkCreateDevice"], PROBE, Probe),
    row(&["vkGetDeviceProcAddr"], "queue-submit", Fails("no HOST_VISIBLE|HOST_COHERENT memory")),
    row(&["vkDestroyDevice"], "devices-made-anew", BYTE),
    row(&["vkGetDeviceQueue"], "queue-submit", Fails("device has been lost")),
    beside(&["vkGetDeviceQueue2"], "device-queue2", Fails("device has been lost"), &["vkGetDeviceQueue"]),
    row(&["vkAllocateMemory"], "queue-submit", Misuse("lavapipe", "there is no memory type 2")),
    row(&["vkFreeMemory"], "objects-destroyed", Leaves("memories")),
    // Lavapipe's own mapping would do.
    row(&["vkMapMemory"], "queue-submit", FailsOver("incoherent", "byte ")),
    row(&["vkMapMemory2", "vkMapMemory2KHR"], "map-memory2", Misuse("incoherent", "is mapped a second time")),
    row(&["vkUnmapMemory"], "write-then-unmap", Misuse("pi", "is unmapped, but not mapped")),
    row(&["vkUnmapMemory2", "vkUnmapMemory2KHR"], "map-memory2", Misuse("pi", "is unmapped, but not mapped")),
    beside(&["vkFlushMappedMemoryRanges"], "cached-memory-flushed-late", BYTE, &["vkSetEvent"]),
    beside(&["vkInvalidateMappedMemoryRanges"], "cached-memory-flushed", BYTE, &["vkWaitForFences"]),
    // The backing driver never hears of the extension, and its own command is not there.
    row(
        &["vkGetMemoryHostPointerPropertiesEXT"],
        "import-queries",
        Fails("no vkGetMemoryHostPointerPropertiesEXT"),
    ),
    row(&["vkCreateBuffer"], "storage-descriptors", WORD),
    row(&["vkDestroyBuffer"], "objects-destroyed", Leaves("buffers")),
    row(&["vkBindBufferMemory"], "queue-submit", BYTE),
    row(&["vkBindBufferMemory2", "vkBindBufferMemory2KHR"], "bind-buffer-memory2", BYTE),
    row(&["vkCreateBufferView"], "texel-buffers", WORD),
    row(&["vkDestroyBufferView"], "objects-destroyed", Leaves("buffer views")),
    row(&["vkCreateImage"], "import-image", Misuse("lavapipe", "is for host memory")),
    row(&["vkBindImageMemory"], "linear-image", BYTE),
    row(&["vkBindImageMemory2", "vkBindImageMemory2KHR"], "linear-image2", BYTE),
    row(&["vkCopyMemoryToImage", "vkCopyMemoryToImageEXT"], "copy-memory-to-image", BYTE),
    row(&["vkCopyImageToMemory", "vkCopyImageToMemoryEXT"], "copy-image-to-memory", BYTE),
    row(&["vkCopyImageToImage", "vkCopyImageToImageEXT"], "copy-image-to-image", BYTE),
    beside(
        &["vkTransitionImageLayout", "vkTransitionImageLayoutEXT"],
        "transition-image-layout",
        BYTE,
        &["vkWaitForFences"],
    ),
    row(&["vkAllocateDescriptorSets"], "idle-beside-descriptors", Flushes(2 << 20)),
    row(&["vkFreeDescriptorSets"], "pools-emptied", Holds("descriptor sets")),
    row(&["vkResetDescriptorPool"], "pools-emptied", Holds("descriptor sets")),
    row(&["vkDestroyDescriptorPool"], "objects-destroyed", Leaves("descriptor sets")),
    row(&["vkUpdateDescriptorSets"], "storage-descriptors", WORD),
    row(
        &["vkCreateDescriptorUpdateTemplate", "vkCreateDescriptorUpdateTemplateKHR"],
        "templated-descriptors",
        WORD,
    ),
    row(
        &["vkDestroyDescriptorUpdateTemplate", "vkDestroyDescriptorUpdateTemplateKHR"],
        "objects-destroyed",
        Leaves("descriptor update templates"),
    ),
    row(
        &["vkUpdateDescriptorSetWithTemplate", "vkUpdateDescriptorSetWithTemplateKHR"],
        "templated-descriptors",
        WORD,
    ),
    row(&["vkAllocateCommandBuffers"], "queue-submit", Fails("device has been lost")),
    row(&["vkFreeCommandBuffers"], "pools-emptied", Holds("command buffers")),
    row(&["vkDestroyCommandPool"], "objects-destroyed", Leaves("command buffers")),
    row(&["vkBeginCommandBuffer"], "recorded-anew", Flushes(2 << 20)),
    row(&["vkCmdExecuteCommands"], "secondary-command-buffer", WORD),
    row(&["vkCmdCopyBuffer"], "queue-submit", BYTE),
    row(&["vkCmdCopyBuffer2", "vkCmdCopyBuffer2KHR"], "copy-buffer2", BYTE),
    row(&["vkCmdCopyBufferToImage"], "buffer-image-copies", BYTE),
    row(&["vkCmdCopyBufferToImage2", "vkCmdCopyBufferToImage2KHR"], "buffer-image-copies2", BYTE),
    row(&["vkCmdCopyImageToBuffer"], "buffer-image-copies", BYTE),
    row(&["vkCmdCopyImageToBuffer2", "vkCmdCopyImageToBuffer2KHR"], "buffer-image-copies2", BYTE),
    row(&["vkCmdUpdateBuffer"], "update-buffer", BYTE),
    row(&["vkCmdFillBuffer"], "fill-buffer", BYTE),
    row(&["vkCmdCopyQueryPoolResults"], "copy-query-results", BYTE),
    row(&["vkCmdBindVertexBuffers"], "vertex-buffer", WORD),
    row(&["vkCmdBindVertexBuffers2", "vkCmdBindVertexBuffers2EXT"], "vertex-buffer2", WORD),
    row(&["vkCmdBindIndexBuffer"], "index-buffer", WORD),
    row(&["vkCmdBindIndexBuffer2", "vkCmdBindIndexBuffer2KHR"], "index-buffer2", WORD),
    row(&["vkCmdDispatchIndirect"], "indirect-dispatch", WORD),
    row(&["vkCmdDrawIndirect"], "draw-indirect", WORD),
    row(&["vkCmdDrawIndexedIndirect"], "draw-indexed-indirect", WORD),
    row(&["vkCmdDrawMeshTasksIndirectEXT"], "draw-mesh-tasks-indirect", WORD),
    row(
        &["vkCmdDrawIndirectCount", "vkCmdDrawIndirectCountKHR", "vkCmdDrawIndirectCountAMD"],
        "draw-indirect-count",
        WORD,
    ),
    row(
        &[
            "vkCmdDrawIndexedIndirectCount",
            "vkCmdDrawIndexedIndirectCountKHR",
            "vkCmdDrawIndexedIndirectCountAMD",
        ],
        "draw-indexed-indirect-count",
        WORD,
    ),
    row(&["vkCmdDrawMeshTasksIndirectCountEXT"], "draw-mesh-tasks-indirect-count", WORD),
    row(&["vkCmdDrawIndirectByteCountEXT"], "draw-indirect-byte-count", WORD),
    row(&["vkCmdBindTransformFeedbackBuffersEXT"], "transform-feedback", WORD),
    row(&["vkCmdBeginTransformFeedbackEXT"], "transform-feedback-resumed", WORD),
    row(&["vkCmdEndTransformFeedbackEXT"], "transform-feedback-counted", WORD),
    row(&["vkCmdBeginConditionalRenderingEXT"], "conditional-rendering", WORD),
    row(&["vkCmdBindDescriptorSets"], "storage-descriptors", WORD),
    row(&["vkCmdBindDescriptorSets2", "vkCmdBindDescriptorSets2KHR"], "descriptors-bound-by-structure", WORD),
    row(&["vkCmdPushDescriptorSet", "vkCmdPushDescriptorSetKHR"], "pushed-descriptors", WORD),
    row(&["vkCmdPushDescriptorSet2", "vkCmdPushDescriptorSet2KHR"], "descriptors-pushed-by-structure", WORD),
    row(
        &["vkCmdPushDescriptorSetWithTemplate", "vkCmdPushDescriptorSetWithTemplateKHR"],
        "descriptors-pushed-by-template",
        WORD,
    ),
    row(
        &["vkCmdPushDescriptorSetWithTemplate2", "vkCmdPushDescriptorSetWithTemplate2KHR"],
        "descriptors-pushed-by-template-structure",
        WORD,
    ),
    row(&["vkGetBufferMemoryRequirements"], "memory-type-bits", Fails("sources disagree")),
    row(
        &["vkGetBufferMemoryRequirements2", "vkGetBufferMemoryRequirements2KHR"],
        "memory-type-bits",
        Fails("sources disagree"),
    ),
    row(
        &["vkGetDeviceBufferMemoryRequirements", "vkGetDeviceBufferMemoryRequirementsKHR"],
        "memory-type-bits",
        Fails("sources disagree"),
    ),
    row(&["vkGetImageMemoryRequirements"], "memory-type-bits", Fails("sources disagree")),
    row(
        &["vkGetImageMemoryRequirements2", "vkGetImageMemoryRequirements2KHR"],
        "memory-type-bits",
        Fails("sources disagree"),
    ),
    row(
        &["vkGetDeviceImageMemoryRequirements", "vkGetDeviceImageMemoryRequirementsKHR"],
        "memory-type-bits",
        Fails("sources disagree"),
    ),
    row(&["vkGetMemoryFdKHR"], "shared-memory", Fails("is 0x00, should be 0x01")),
    row(&["vkGetMemoryFdPropertiesKHR"], "memory-fd-properties", Fails("are not the types there are")),
    row(&["vkQueueSubmit"], "queue-submit", BYTE),
    row(&["vkQueueSubmit2", "vkQueueSubmit2KHR"], "queue-submit2", BYTE),
    row(&["vkQueueBindSparse"], "sparse-buffer", BYTE),
    beside(&["vkQueuePresentKHR"], "present-and-submit", BYTE, &["vkQueueSubmit"]),
    row(&["vkQueueWaitIdle"], "queue-wait-idle", BYTE),
    row(&["vkDeviceWaitIdle"], "device-wait-idle", BYTE),
    row(&["vkWaitForFences"], "wait-for-fences", BYTE),
    row(&["vkGetFenceStatus"], "get-fence-status", BYTE),
    row(&["vkWaitSemaphores", "vkWaitSemaphoresKHR"], "wait-semaphores", BYTE),
    row(&["vkSignalSemaphore", "vkSignalSemaphoreKHR"], "signal-after-submit", BYTE),
    row(
        &["vkGetSemaphoreCounterValue", "vkGetSemaphoreCounterValueKHR"],
        "get-semaphore-counter-value",
        BYTE,
    ),
    row(&["vkDestroyFence"], "objects-destroyed", Leaves("fences")),
    // What is known to be done is forgotten anyway.
    beside(
        &["vkDestroySemaphore"],
        "timeline-destroyed",
        Leaves("timeline semaphores"),
        &["vkDeviceWaitIdle"],
    ),
    beside(&["vkAcquireNextImageKHR"], "acquire-next-image", BYTE, &["vkWaitForFences"]),
    beside(&["vkAcquireNextImage2KHR"], "acquire-next-image2", BYTE, &["vkWaitForFences"]),
    beside(&["vkWaitForPresentKHR"], "wait-for-present", BYTE, &["vkWaitForFences"]),
    beside(&["vkWaitForPresent2KHR"], "wait-for-present2", BYTE, &["vkWaitForFences"]),
    row(&["vkSetEvent"], "set-event-after-submit", BYTE),
    row(&["vkGetEventStatus"], "get-event-status", BYTE),
    row(&["vkDestroyEvent"], "events-of-host-and-device", Leaves("events")),
    row(&["vkCmdSetEvent"], "events-of-host-and-device", FailsStaged("both events are set")),
    row(&["vkCmdWaitEvents"], "set-event-after-submit", FailsStaged("byte ")),
    row(&["vkCmdWaitEvents2", "vkCmdWaitEvents2KHR"], "events-of-host-and-device2", FailsStaged("byte ")),
    row(&["vkCreateFence"], "exported-fence", BYTE),
    row(&["vkGetFenceFdKHR"], "exported-fence", Misuse("lavapipe", "nothing signals")),
    row(&["vkCreateSemaphore"], "exported-semaphore", BYTE),
    row(&["vkGetSemaphoreFdKHR"], "exported-semaphore", Misuse("lavapipe", "nothing signals")),
    row(&["vkImportFenceFdKHR"], "imported-fence", BYTE),
    row(&["vkImportSemaphoreFdKHR"], "imported-semaphore", BYTE),
];
