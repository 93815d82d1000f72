# Only photos, no pairs: their sketches are drawn on line. data_root may be any
# folder of images: --cfg-options train_dataloader.dataset.data_root=FOLDER
_base_ = ['../_base_/models/cmcd_resnet50.py', '../_base_/distill_runtime.py',
          '../_base_/schedules/adamw_cosine.py']
_any = dict(folder='', suffix=['.jpg', '.jpeg', '.png', '.webp'])
model = dict(data_preprocessor=dict(target=dict(mean=[245.], std=[40.])))
train_dataloader = dict(
    batch_size=128, num_workers=4, drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True), dataset=dict(
        type='mmcmcd.PairedModalityDataset', data_root='data/photos/',
        sides=dict(source=_any, target=_any), pipeline=[
            dict(type='mmcmcd.OnSide', sides=['source', 'target'],
                 transforms=[dict(type='mmcmcd.LoadImageStrict')]),
            dict(type='mmcmcd.SharedGeometry', transforms=[
                dict(type='RandomResizedCrop', scale=224)]),
            dict(type='mmcmcd.OnSide', sides='target',
                 transforms=[dict(type='mmcmcd.SketchFromImage')]),
            dict(type='mmcmcd.PackPairedInputs')]))
del _any
