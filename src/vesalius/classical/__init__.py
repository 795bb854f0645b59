"""The hand-designed algorithms that every learned model has to beat on the same cases.

`multi_atlas` copies the outlines of training patients onto a new one, `tissue` clusters intensities,
`voxelwise` judges each voxel by its surroundings and its place; `choice` keeps the best of them.
`classification` judges whole images by `radiomics`, hand-designed features; `detection` judges what `lesions`,
hand-designed filters, answer to.
"""
