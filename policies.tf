# Policies of the roles, the bucket, the queues, the topic, the key, and of jobs that write files.

# ARNs by name, not from resources, so that a plan shows the complete policies.
locals {
  bucket_arn     = "arn:${local.partition}:s3:::${local.bucket_name}"
  queue_arns     = { for queue in ["stats", "dead-letter", "rejected"] : queue => "arn:${local.partition}:sqs:${local.region}:${local.account}:${var.name}-${queue}" }
  topic_arn      = "arn:${local.partition}:sns:${local.region}:${local.account}:${var.name}-alarms"
  vpc_actions    = ["ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:DeleteNetworkInterface", "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses"]
  log_groups_arn = "arn:${local.partition}:logs:${local.region}:${local.account}:log-group:/aws/lambda"
}

# ---------------------------------------------------------------------------------------
# Functions
# ---------------------------------------------------------------------------------------

data "aws_iam_policy_document" "lambda_assume" {
  statement {
    sid     = "LambdaAssumesTheRole"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "mock_datasource" {
  count = local.mock_datasource_count

  statement {
    sid       = "WriteSampleFiles"
    actions   = ["s3:PutObject"]
    resources = ["${local.bucket_arn}/${local.mock_datasource_prefix}*"] # * is the file's own name
  }

  statement {
    sid       = "WriteOwnLog" # not CreateLogGroup: a late line would recreate the group after destroy
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${local.log_groups_arn}/${local.mock_datasource_name}:*"] # Lambda picks the streams' names
  }

  dynamic "statement" {
    for_each = var.kms_key_arn[*]

    content {
      sid       = "EncryptSampleFiles"
      actions   = ["kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = local.in_vpc

    content {
      sid       = "JoinVpc" # like AWS's AWSLambdaVPCAccessExecutionRole; a shared subnet is in another account
      actions   = local.vpc_actions
      resources = ["*"]
    }
  }
}

data "aws_iam_policy_document" "metric_submit" {
  statement {
    sid       = "TakeNotifications"
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
    resources = [local.queue_arns["stats"]]
  }

  statement {
    sid       = "ReadFiles"
    actions   = ["s3:GetObject", "s3:GetObjectVersion"]
    resources = [for bucket, prefix in local.prefixes : "arn:${local.partition}:s3:::${bucket}/${prefix}*"] # * is the file's own name
  }

  statement {
    sid       = "TellMissingFromForbidden" # without it S3 answers 403 for a file that is gone
    actions   = ["s3:ListBucket"]          # no condition on s3:prefix: GetObject carries none
    resources = [for bucket in keys(local.prefixes) : "arn:${local.partition}:s3:::${bucket}"]
  }

  dynamic "statement" {
    for_each = length(local.bucket_keys) == 0 ? [] : [local.bucket_keys]

    content {
      sid       = "DecryptFiles"
      actions   = ["kms:Decrypt"]
      resources = statement.value
    }
  }

  dynamic "statement" {
    for_each = var.kms_key_arn[*]

    content {
      sid       = "UseKeyOfQueuesAndBucket"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }

  statement {
    sid       = "KeepRefusedFiles"
    actions   = ["sqs:SendMessage"]
    resources = [local.queue_arns["rejected"]]
  }

  statement {
    sid       = "WriteOwnLog" # not CreateLogGroup: a late line would recreate the group after destroy
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${local.log_groups_arn}/${local.metric_submit_name}:*"] # Lambda picks the streams' names
  }

  dynamic "statement" {
    for_each = local.in_vpc

    content {
      sid       = "JoinVpc" # like AWS's AWSLambdaVPCAccessExecutionRole; a shared subnet is in another account
      actions   = local.vpc_actions
      resources = ["*"]
    }
  }

  dynamic "statement" {
    for_each = local.secret_given ? [var.ddg_api_key_secret_arn] : []

    content {
      sid       = "ReadApiKey"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = local.secret_given && var.ddg_api_key_kms_key_arn != null ? [var.ddg_api_key_kms_key_arn] : []

    content {
      sid       = "DecryptApiKey"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
    }
  }
}

# ---------------------------------------------------------------------------------------
# Bucket, queues, topic
# ---------------------------------------------------------------------------------------

data "aws_iam_policy_document" "tls_only" {
  for_each = {
    bucket      = { actions = ["s3:*"], resources = [local.bucket_arn, "${local.bucket_arn}/*"] }
    stats       = { actions = ["sqs:*"], resources = [local.queue_arns["stats"]] }
    dead_letter = { actions = ["sqs:*"], resources = [local.queue_arns["dead-letter"]] }
    rejected    = { actions = ["sqs:*"], resources = [local.queue_arns["rejected"]] }
    alarms      = { actions = ["sns:Publish"], resources = [local.topic_arn] }
  }

  statement {
    sid       = "RefusePlainHttp"
    effect    = "Deny"
    actions   = each.value.actions # a Deny of everything
    resources = each.value.resources

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

data "aws_iam_policy_document" "stats_queue" {
  source_policy_documents = [data.aws_iam_policy_document.tls_only["stats"].json]

  # One statement per owner: a queue's policy has at most 20.
  dynamic "statement" {
    for_each = local.notifying_buckets

    content {
      sid       = "BucketsOf${statement.key}Notify"
      actions   = ["sqs:SendMessage"]
      resources = [local.queue_arns["stats"]]

      principals {
        type        = "Service"
        identifiers = ["s3.amazonaws.com"]
      }

      condition {
        test     = "ArnEquals"
        variable = "aws:SourceArn"
        values   = statement.value
      }

      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount" # a bucket's ARN has no account: if it were deleted, another account could take the name
        values   = [statement.key]
      }
    }
  }

  dynamic "statement" {
    for_each = { for service, sources in local.sources : service => sources if length(sources) > 0 }

    content {
      sid       = statement.key == "events" ? "RulesSend" : "TopicsSend"
      actions   = ["sqs:SendMessage"]
      resources = [local.queue_arns["stats"]]

      principals {
        type        = "Service"
        identifiers = ["${statement.key}.amazonaws.com"]
      }

      condition {
        test     = "ArnEquals"
        variable = "aws:SourceArn"
        values   = statement.value
      }
    }
  }
}

data "aws_iam_policy_document" "dead_letter_queue" {
  source_policy_documents = [data.aws_iam_policy_document.tls_only["dead_letter"].json]

  dynamic "statement" {
    for_each = length(local.sources.events) > 0 ? [local.sources.events] : []

    content {
      sid       = "RulesSendWhatTheyCannotDeliver"
      actions   = ["sqs:SendMessage"]
      resources = [local.queue_arns["dead-letter"]]

      principals {
        type        = "Service"
        identifiers = ["events.amazonaws.com"]
      }

      condition {
        test     = "ArnEquals"
        variable = "aws:SourceArn"
        values   = statement.value
      }
    }
  }
}

data "aws_iam_policy_document" "alarm_topic" {
  source_policy_documents = [data.aws_iam_policy_document.tls_only["alarms"].json]

  statement {
    sid       = "AlarmsPublish"
    actions   = ["sns:Publish"]
    resources = [local.topic_arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values = concat(
        [for alarm in local.alarm_names : "${local.alarm_arn}${alarm}" if !startswith(alarm, local.job_alarms)],
        length(local.silent_after_hours) == 0 ? [] : ["${local.alarm_arn}${local.job_alarms}*"], # by pattern: a policy's size is limited
      )
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

# ---------------------------------------------------------------------------------------
# Key
# ---------------------------------------------------------------------------------------

# By name, so that a key's policy can use this output while the stack uses the key.
locals {
  roles_arn = "arn:${local.partition}:iam::${local.account}:role${coalesce(var.iam_role_path, "/")}"

  kms_key_statements = [
    {
      Sid       = "DatadogStatsFunctions"
      Effect    = "Allow"
      Principal = { AWS = "arn:${local.partition}:iam::${local.account}:root" } # a policy can't name a role before it exists
      Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource  = "*" # a key's policy is for that key
      Condition = { ArnEquals = { "aws:PrincipalArn" = [for function in [local.metric_submit_name, local.mock_datasource_name] : "${local.roles_arn}${function}-${local.region}"] } }
    },
    {
      Sid       = "DatadogStatsSenders" # no condition: not every service tells KMS on whose behalf it acts
      Effect    = "Allow"
      Principal = { Service = ["cloudwatch.amazonaws.com", "events.amazonaws.com", "s3.amazonaws.com", "sns.amazonaws.com"] }
      Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
      Resource  = "*"
    },
    {
      Sid       = "DatadogStatsLogs"
      Effect    = "Allow"
      Principal = { Service = "logs.${local.region}.${data.aws_partition.current.dns_suffix}" }
      Action    = ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"]
      Resource  = "*"
      Condition = { ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "${local.log_groups_arn}/${var.name}-*" } }
    },
  ]
}

# ---------------------------------------------------------------------------------------
# Jobs
# ---------------------------------------------------------------------------------------

data "aws_iam_policy_document" "producer" {
  statement {
    sid       = "WriteStatsFiles"
    actions   = ["s3:PutObject"]
    resources = ["${local.bucket_arn}/${var.stats_prefix}*"] # * is <job>/<file>
  }

  dynamic "statement" {
    for_each = var.kms_key_arn[*]

    content {
      sid       = "EncryptStatsFiles"
      actions   = ["kms:GenerateDataKey", "kms:Decrypt"] # Decrypt is for multipart uploads
      resources = [statement.value]
    }
  }
}
