//! What looks like a door to host memory and is passed through all the same, and why that is safe.
//!
//! A name stands for its aliases, too. Those of Vulkan's versions come first in a group, then those of extensions.

/// Why something is passed through.
pub enum Why {
    Because(&'static str),
    /// It takes this feature, which is hidden.
    Hidden(&'static str),
}
use Why::{Because, Hidden};

pub type Table = [(Why, &'static [&'static str])];

/// The VK_HEADER_VERSION of the registry that has all of these names. In older ones some are missing, or are no doors
/// yet.
pub const VERSION: u32 = 360;

pub const COMMANDS: &Table = &[
    (
        Because(
            "a barrier orders accesses and makes none; memory shared with others counts as written anyway",
        ),
        &["vkCmdPipelineBarrier", "vkCmdPipelineBarrier2"],
    ),
    (
        Because("buffers with such usage are reachable by address, so that every batch counts as using them"),
        &[
            "vkGetBufferDeviceAddress",
            "vkGetBufferOpaqueCaptureAddress",
            "vkCmdBindDescriptorBuffersEXT",
            "vkCmdBindIndexBuffer3KHR",
            "vkCmdBindResourceHeapEXT",
            "vkCmdBindSamplerHeapEXT",
            "vkCmdBindTransformFeedbackBuffers2EXT",
            "vkCmdBindVertexBuffers3KHR",
            "vkCmdBuildAccelerationStructuresIndirectKHR",
            "vkCmdBuildAccelerationStructuresKHR",
            "vkCmdBuildMicromapsEXT",
            "vkCmdConvertCooperativeVectorMatrixNV",
            "vkCmdCopyAccelerationStructureToMemoryKHR",
            "vkCmdCopyMemoryToAccelerationStructureKHR",
            "vkCmdCopyMemoryToMicromapEXT",
            "vkCmdCopyMicromapToMemoryEXT",
            "vkCmdUpdateMemoryKHR",
            "vkCreateAccelerationStructure2KHR",
            "vkCreateAccelerationStructureKHR",
            "vkCreateMicromapEXT",
            "vkGetBufferOpaqueCaptureDescriptorDataEXT",
        ],
    ),
    (
        Because(
            "the backing driver reads or writes the application's bytes on the host, within the call: for a tracker that is \
             the application itself, and what it describes to the device is reachable by address",
        ),
        &[
            "vkCmdPushConstants",
            "vkCmdPushConstants2",
            "vkCreateComputePipelines",
            "vkCreateGraphicsPipelines",
            "vkCreateImageView",
            "vkCreatePipelineCache",
            "vkCreateSampler",
            "vkGetPipelineCacheData",
            "vkCmdPushDataEXT",
            "vkConvertCooperativeVectorMatrixNV",
            "vkCreateOpticalFlowSessionNV",
            "vkCreatePipelineBinariesKHR",
            "vkCreateRayTracingPipelinesKHR",
            "vkCreateShadersEXT",
            "vkCreateValidationCacheEXT",
            "vkDebugMarkerSetObjectTagEXT",
            "vkGetAccelerationStructureOpaqueCaptureDescriptorDataEXT",
            "vkGetDescriptorEXT",
            "vkGetDeviceFaultDebugInfoKHR",
            "vkGetDeviceFaultInfoEXT",
            "vkGetGpaSessionResultsAMD",
            "vkGetImageOpaqueCaptureDataEXT",
            "vkGetImageOpaqueCaptureDescriptorDataEXT",
            "vkGetImageViewOpaqueCaptureDescriptorDataEXT",
            "vkGetLatencyTimingsLegacyNV",
            "vkGetPipelineBinaryDataKHR",
            "vkGetPipelineExecutableInternalRepresentationsKHR",
            "vkGetRayTracingCaptureReplayShaderGroupHandlesKHR",
            "vkGetRayTracingShaderGroupHandlesKHR",
            "vkGetSamplerOpaqueCaptureDescriptorDataEXT",
            "vkGetShaderBinaryDataEXT",
            "vkGetShaderInfoAMD",
            "vkGetShaderInstrumentationValuesARM",
            "vkGetValidationCacheDataEXT",
            "vkSetDebugUtilsObjectTagEXT",
            "vkWriteResourceDescriptorsEXT",
            "vkWriteSamplerDescriptorsEXT",
        ],
    ),
    (
        Because("the pointer is a mark that the driver keeps and hands back, and nobody follows"),
        &["vkCmdSetCheckpointNV", "vkGetQueueCheckpointData2NV", "vkGetQueueCheckpointDataNV"],
    ),
    (
        Because("tells a size, a state or a time, or where something lies, and touches no bytes"),
        &[
            "vkGetDeviceImageSparseMemoryRequirements",
            "vkGetDeviceImageSubresourceLayout",
            "vkGetDeviceMemoryCommitment",
            "vkGetDeviceMemoryOpaqueCaptureAddress",
            "vkGetAccelerationStructureBuildSizesKHR",
            "vkGetCalibratedTimestampsKHR",
            "vkGetDescriptorSetLayoutBindingOffsetEXT",
            "vkGetLatencyTimingsNV",
            "vkGetMicromapBuildSizesEXT",
            "vkGetPastPresentationTimingEXT",
            "vkGetPastPresentationTimingGOOGLE",
            "vkGetRefreshCycleDurationGOOGLE",
            "vkGetSwapchainCounterEXT",
            "vkGetSwapchainImagesKHR",
            "vkGetSwapchainStatusKHR",
            "vkGetSwapchainTimeDomainPropertiesEXT",
            "vkGetSwapchainTimingPropertiesEXT",
        ],
    ),
    (
        Because("a hint, a setting or a note for tools, which moves no bytes"),
        &[
            "vkQueueBeginDebugUtilsLabelEXT",
            "vkQueueEndDebugUtilsLabelEXT",
            "vkQueueInsertDebugUtilsLabelEXT",
            "vkQueueNotifyOutOfBandLegacyNV",
            "vkQueueNotifyOutOfBandNV",
            "vkQueueSetPerfHintQCOM",
            "vkQueueSetPerformanceConfigurationINTEL",
            "vkSetDeviceMemoryPriorityEXT",
            "vkSetHdrMetadataEXT",
            "vkSetLatencyMarkerNV",
            "vkSetLatencySleepModeNV",
            "vkSetLocalDimmingAMD",
            "vkSetSwapchainPresentTimingQueueSizeEXT",
            "vkSubmitDebugUtilsMessageEXT",
        ],
    ),
    (
        Because("memory with an image in it counts as used by every batch, whatever is done with the image"),
        &["vkBindOpticalFlowSessionImageNV", "vkCmdBindInvocationMaskHUAWEI", "vkCmdBindShadingRateImageNV"],
    ),
    (
        Because("images of a swapchain lie in memory that no application maps"),
        &[
            "vkCreateSharedSwapchainsKHR",
            "vkCreateSwapchainKHR",
            "vkDestroySwapchainKHR",
            "vkReleaseSwapchainImagesEXT",
        ],
    ),
    (Because("tile memory cannot be mapped"), &["vkCmdBindTileMemoryQCOM"]),
    (
        Because("names no memory"),
        &[
            "vkCmdBindPipeline",
            "vkCmdBindDescriptorBufferEmbeddedSamplers2EXT",
            "vkCmdBindDescriptorBufferEmbeddedSamplersEXT",
            "vkCmdBindShadersEXT",
        ],
    ),
    (
        Because(
            "a new or reset object releases nobody and tells nothing; the host waits for it where that is intercepted",
        ),
        &["vkCreateEvent", "vkResetEvent", "vkResetFences"],
    ),
    (
        Because("the device does it, in a batch; the host looks at the event where that is intercepted"),
        &["vkCmdResetEvent", "vkCmdResetEvent2", "vkCmdSetEvent2"],
    ),
    (
        Because("a display or a clock signals it, and no batch"),
        &[
            "vkLatencySleepLegacyNV",
            "vkLatencySleepNV",
            "vkRegisterDeviceEventEXT",
            "vkRegisterDisplayEventEXT",
        ],
    ),
    (
        Because("with host builds hidden, only the compiling of pipelines is ever deferred"),
        &[
            "vkCreateDeferredOperationKHR",
            "vkDeferredOperationJoinKHR",
            "vkDestroyDeferredOperationKHR",
            "vkGetDeferredOperationMaxConcurrencyKHR",
            "vkGetDeferredOperationResultKHR",
        ],
    ),
    (
        Hidden("accelerationStructureHostCommands"),
        &[
            "vkBuildAccelerationStructuresKHR",
            "vkCopyAccelerationStructureKHR",
            "vkCopyAccelerationStructureToMemoryKHR",
            "vkCopyMemoryToAccelerationStructureKHR",
            "vkWriteAccelerationStructuresPropertiesKHR",
        ],
    ),
    (
        Hidden("micromapHostCommands"),
        &[
            "vkBuildMicromapsEXT",
            "vkCopyMemoryToMicromapEXT",
            "vkCopyMicromapEXT",
            "vkCopyMicromapToMemoryEXT",
            "vkWriteMicromapsPropertiesEXT",
        ],
    ),
    (
        Because("tells of the query alone: no memory is available to the host by it"),
        &["vkGetQueryPoolResults"],
    ),
];

/// Structures. Those that leave an allocation private stand in the driver itself.
pub const STRUCTURES: &Table = &[
    (
        Because("read where the command that takes it is intercepted"),
        &["VkBufferUsageFlags2CreateInfo", "VkTimelineSemaphoreSubmitInfo", "VkMemoryMapPlacedInfoEXT"],
    ),
    (
        Because("such memory counts as shared: used by every batch, and up to date at every map"),
        &[
            "VkExportMemoryAllocateInfo",
            "VkExternalMemoryBufferCreateInfo",
            "VkDedicatedAllocationBufferCreateInfoNV",
            "VkDedicatedAllocationMemoryAllocateInfoNV",
            "VkExportMemoryAllocateInfoNV",
            "VkImportMemoryFdInfoKHR",
        ],
    ),
    (
        Because("buffers with such usage are reachable by address, so that every batch counts as using them"),
        &[
            "VkBufferOpaqueCaptureAddressCreateInfo",
            "VkBufferDeviceAddressCreateInfoEXT",
            "VkOpaqueCaptureDescriptorDataCreateInfoEXT",
        ],
    ),
    (
        Because("memory with an image in it counts as used by every batch, whatever the image is like"),
        &[
            "VkBindImagePlaneMemoryInfo",
            "VkExternalMemoryImageCreateInfo",
            "VkImageFormatListCreateInfo",
            "VkImageStencilUsageCreateInfo",
            "VkDedicatedAllocationImageCreateInfoNV",
            "VkExternalMemoryImageCreateInfoNV",
            "VkImageAlignmentControlCreateInfoMESA",
            "VkImageCompressionControlEXT",
            "VkImageCreateFlags2CreateInfoKHR",
            "VkImageDrmFormatModifierExplicitCreateInfoEXT",
            "VkImageDrmFormatModifierListCreateInfoEXT",
            "VkImageStencilUsage2CreateInfoKHR",
            "VkImageTilingControlCreateInfoEXT",
            "VkImageUsageFlags2CreateInfoKHR",
            "VkOpaqueCaptureDataCreateInfoEXT",
            "VkOpticalFlowImageFormatInfoNV",
        ],
    ),
    (
        Because("images of a swapchain lie in memory that no application maps"),
        &["VkBindImageMemorySwapchainInfoKHR", "VkImageSwapchainCreateInfoKHR"],
    ),
    (
        Because("memory that can be mapped has one instance, whichever device of the group works with it"),
        &[
            "VkBindBufferMemoryDeviceGroupInfo",
            "VkBindImageMemoryDeviceGroupInfo",
            "VkDeviceGroupBindSparseInfo",
            "VkDeviceGroupSubmitInfo",
        ],
    ),
    (
        Because("says nothing of memory, or names resources for tools alone"),
        &[
            "VkBindMemoryStatus",
            "VkProtectedSubmitInfo",
            "VkAmigoProfilingSubmitInfoSEC",
            "VkFrameBoundaryEXT",
            "VkLatencySubmissionPresentIdNV",
            "VkPerformanceQuerySubmitInfoKHR",
            "VkThrottleHintSubmitInfoSEC",
        ],
    ),
    (
        Because("it speaks of heaps, which are the backing driver's"),
        &["VkPhysicalDeviceMemoryBudgetPropertiesEXT"],
    ),
];

/// Bits of flags.
pub const BITS: &Table = &[
    (
        Because("read where the command that takes it is intercepted"),
        &[
            "VK_MEMORY_ALLOCATE_ZERO_INITIALIZE_BIT_EXT",
            "VK_MEMORY_MAP_PLACED_BIT_EXT",
            "VK_MEMORY_UNMAP_RESERVE_BIT_EXT",
        ],
    ),
    (
        Because("known to those who make the list of memory types"),
        &[
            "VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT",
            "VK_MEMORY_PROPERTY_HOST_CACHED_BIT",
            "VK_MEMORY_PROPERTY_HOST_COHERENT_BIT",
            "VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT",
            "VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT",
            "VK_MEMORY_PROPERTY_PROTECTED_BIT",
            "VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD",
            "VK_MEMORY_PROPERTY_DEVICE_UNCACHED_BIT_AMD",
        ],
    ),
    (
        Because("buffers with such usage are reachable by address, so that every batch counts as using them"),
        &[
            "VK_BUFFER_CREATE_DEVICE_ADDRESS_CAPTURE_REPLAY_BIT",
            "VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT",
            "VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_CAPTURE_REPLAY_BIT",
            "VK_BUFFER_CREATE_DESCRIPTOR_BUFFER_CAPTURE_REPLAY_BIT_EXT",
        ],
    ),
    (
        Because("memory that is bound to a sparse buffer counts as used by every batch"),
        &[
            "VK_BUFFER_CREATE_SPARSE_ALIASED_BIT",
            "VK_BUFFER_CREATE_SPARSE_BINDING_BIT",
            "VK_BUFFER_CREATE_SPARSE_RESIDENCY_BIT",
        ],
    ),
    (
        Because("protected memory cannot be mapped"),
        &[
            "VK_BUFFER_CREATE_PROTECTED_BIT",
            "VK_DEVICE_QUEUE_CREATE_PROTECTED_BIT",
            "VK_SUBMIT_PROTECTED_BIT",
        ],
    ),
    (
        Because("memory that can be mapped has one instance, whichever device of the group works with it"),
        &["VK_MEMORY_ALLOCATE_DEVICE_MASK_BIT"],
    ),
    (Because("the same wait, and what is done comes back whichever it was"), &["VK_SEMAPHORE_WAIT_ANY_BIT"]),
    (Because("the same copy, in another order of bytes"), &["VK_HOST_IMAGE_COPY_MEMCPY_BIT"]),
];
