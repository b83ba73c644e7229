"""Package metadata: dependency ranges and extras. The exact tested versions: requirements.txt."""

import re
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

from setuptools import find_packages, setup

# The maintained forks of mmengine, mmcv and mmdet install under the import names of the originals
# and would overwrite them. The forks depend on each other, so it is one family or the other: the
# originals where any of them is already installed, the forks everywhere else. pip's isolated build
# hides the target environment from sys.path; its site-packages folder is still known to sysconfig.
FORKS = ['onedl-mmengine>=0.10.12,<0.11', 'onedl-mmcv>=2.3.6,<2.4', 'onedl-mmdetection>=3.5.1,<3.6']
ORIGINALS = ['mmengine>=0.10.4,<0.11', 'mmcv>=2.0.1,<2.2', 'mmdet>=3.3,<3.4']
SITE = [*sys.path, sysconfig.get_path('purelib'), sysconfig.get_path('platlib')]
INSTALLED = {dist.metadata['Name'] for dist in distributions(path=SITE)}
OPENMMLAB = ORIGINALS if INSTALLED & {'mmengine', 'mmcv', 'mmcv-lite', 'mmdet'} else FORKS
if 'mmcv-lite' in INSTALLED:  # mmcv without its compiled ops, published under a name of its own
    OPENMMLAB = [name.replace('mmcv>', 'mmcv-lite>') for name in OPENMMLAB]

DEMO = ['scikit-image', 'scikit-learn']  # photographs and digits of the toy dataset
EXTRAS = {
    'export': ['onnx', 'onnxruntime', 'openvino'],
    'int8': ['nncf>=3.4,<4', 'onnx', 'openvino'],
    'app': ['gradio>=6,<7'],
    'pretrain': ['onedl-mmpretrain>=1.3.6,<1.4'],  # the backbones on ImageNet; needs the forks
    'tracking': ['wandb', 'mlflow-skinny', 'alembic', 'sqlalchemy'],  # the last two: a local store
    'docs': ['furo', 'myst-nb', 'sphinx'],
}

setup(
    name='mpvit',
    version=re.search(r"__version__ = '(.+)'", Path('mpvit/__init__.py').read_text())[1],
    description='Deformable DETR with an MPViT backbone, as an MMDetection project',
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['mpvit', 'mpvit.*']),
    entry_points={'console_scripts': ['mpvit = mpvit.cli._main:main']},
    # mpvit/.mim holds links to configs, tools and model-index.yml, which become copies in a wheel;
    # mim and mmengine look for them there
    package_data={
        '': ['*.cpp', '*.html', '*.css', '*.js', 'checks.md', 'published.json'],
        'mpvit': ['.mim/*.yml', '.mim/configs/**/*.*', '.mim/tools/*.py', '.mim/tools/*.sh'],
    },
    exclude_package_data={'': ['*.pyc']},
    python_requires='>=3.10',
    install_requires=[
        *OPENMMLAB,
        'torch>=2.4,<2.14',  # custom operators; 2.14 no longer compiles the sources that mmcv ships
        'torchvision',
        'timm>=1.0',
        'safetensors',
        'pycocotools>=2.0.7',
        'numba>=0.59',  # the CPU kernel
        'vernier>=0.5.4,<0.6',  # COCO's numbers
        'supervision>=0.31,<0.33',  # pictures of detections, tiles, YOLO and Pascal VOC to COCO
        'av>=14.2',  # videos
        'matplotlib',
        'numpy',
        'jinja2',
        'scipy',
        'terminaltables',
        'pillow',
        'tensorboard',
        'tqdm',
        'filelock>=4.1',  # earlier ones empty the file of a lock that another process holds
    ],
    extras_require={
        'demo': DEMO,
        **EXTRAS,
        'test': [
            *DEMO,
            *(name for names in EXTRAS.values() for name in names),
            'build',
            'import-linter',
            'ipykernel',
            'mypy',
            'nbclient',
            'playwright',
            'pytest',
            'pytest-xdist',
            'ruff',
            'transformers>=5.24,<6; python_version >= "3.11"',  # its format is read
        ],
        'bench': ['onnx', 'onnxruntime', 'openvino', 'transformers>=5.24,<6'],
        'bench-compiled': ['torch-ms-deform-attn==0.1.1'],  # builds against the installed torch
        'tensorrt': ['onnx', 'tensorrt>=10.12,<12'],  # not for the lock: NVIDIA's own index
        'bench-gpu': ['deformops==3.0.1; python_version >= "3.12"'],
    },
)
