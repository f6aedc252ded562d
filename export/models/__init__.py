"""The networks: EfficientNet_B5 and the heatmap keypoint network."""
