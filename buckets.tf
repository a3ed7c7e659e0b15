# Existing buckets: how the stack is notified of their files, and what their owners do. The stack never
# writes a bucket's notification configuration: there is only one, and it belongs to the owner.

locals {
  buckets = {
    for name, given in var.buckets : name => {
      arn         = "arn:${local.partition}:s3:::${name}"
      prefix      = try(given.prefix, null) == null ? "stats/" : given.prefix
      notify      = coalesce(try(given.notify, null), try(given.topic_arn, null) == null ? "eventbridge" : "sns")
      topic_arn   = try(given.topic_arn, null)
      account     = coalesce(try(given.account_id, null), local.account)
      kms_key_arn = try(given.kms_key_arn, null)
    }
  }

  bucket_keys = distinct(compact([for bucket in local.buckets : bucket.kms_key_arn]))

  # Who may send to the queue: buckets by their owner, the rules, the topics.
  notifying_buckets = {
    for bucket in concat(
      var.create_bucket ? [{ account = local.account, arn = local.bucket_arn }] : [],
      [for bucket in local.buckets : { account = bucket.account, arn = bucket.arn } if bucket.notify == "s3"],
    ) : bucket.account => bucket.arn...
  }
  sources = {
    events = [for rule in local.rule_names : "arn:${local.partition}:events:${local.region}:${local.account}:rule/${rule}"]
    sns    = local.topics
  }

  # S3 wants the prefix of a filter form-encoded, except for slashes.
  encoded_prefixes = { for name, bucket in local.buckets : name => join("/", [for part in split("/", bucket.prefix) : urlencode(part)]) }
}

# ---------------------------------------------------------------------------------------
# EventBridge
# ---------------------------------------------------------------------------------------

locals {
  event_buckets = { for name, bucket in local.buckets : name => bucket if bucket.notify == "eventbridge" }
  # Stack names have no dots, so no two stacks make the same name.
  rule_names = {
    for name in keys(local.event_buckets) : name => length("${var.name}.${name}") <= 64 ? "${var.name}.${name}" : "${substr("${var.name}.${name}", 0, 55)}.${substr(sha256(name), 0, 8)}"
  }
}

resource "aws_cloudwatch_event_rule" "bucket" {
  for_each = local.event_buckets

  name        = local.rule_names[each.key]
  description = "Tells the queue ${aws_sqs_queue.stats.name} of new files in s3://${each.key}."
  tags        = var.tags

  event_pattern = jsonencode({
    source      = ["aws.s3"]
    detail-type = ["Object Created"]
    detail = merge(
      { bucket = { name = [each.key] } },
      # EventBridge sends keys as they are; a stand-in encodes them.
      each.value.prefix == "" ? {} : { object = { key = [for prefix in distinct([each.value.prefix, replace(local.encoded_prefixes[each.key], "+", "%20")]) : { prefix = prefix }] } },
    )
  })

  depends_on = [aws_lambda_function.metric_submit] # a submitter that doesn't know the prefix would ignore the file
}

resource "aws_cloudwatch_event_target" "bucket" {
  for_each = aws_cloudwatch_event_rule.bucket

  rule      = each.value.name
  target_id = "stats"
  arn       = aws_sqs_queue.stats.arn

  dead_letter_config {
    arn = aws_sqs_queue.dead_letter.arn
  }

  depends_on = [aws_sqs_queue_policy.stats, aws_sqs_queue_policy.dead_letter] # before, the rule may not send
}

# ---------------------------------------------------------------------------------------
# SNS
# ---------------------------------------------------------------------------------------

locals {
  topics = distinct([for bucket in local.buckets : bucket.topic_arn if bucket.notify == "sns"])
}

# One per topic: SNS would take a second subscription of the same queue for the first.
resource "aws_sns_topic_subscription" "bucket" {
  for_each = toset(local.topics)

  topic_arn            = each.key
  protocol             = "sqs"
  endpoint             = aws_sqs_queue.stats.arn
  raw_message_delivery = true

  depends_on = [aws_sqs_queue_policy.stats, aws_lambda_function.metric_submit] # as for a rule and its target
}

# ---------------------------------------------------------------------------------------
# What the owners do: the output bucket_steps
# ---------------------------------------------------------------------------------------

locals {
  # How jq changes the configured notifications. Running it twice changes nothing more.
  notification_edits = {
    for name, bucket in local.buckets : name => {
      eventbridge = "add + {EventBridgeConfiguration: {}}"
      s3          = "add + {} | .QueueConfigurations = [.QueueConfigurations[]? | select(.QueueArn != \"${local.queue_arns["stats"]}\")] + [${local.queue_configurations[name]}]"
    }[bucket.notify] if bucket.notify != "sns"
  }

  queue_configurations = {
    for bucket, prefix in local.encoded_prefixes : bucket => jsonencode({
      Id       = var.name
      QueueArn = local.queue_arns["stats"]
      Events   = ["s3:ObjectCreated:*"]
      Filter   = { Key = { FilterRules = [for value in compact([prefix]) : { Name = "prefix", Value = value }] } }
    })
  }

  bucket_options = { for name, bucket in local.buckets : name => "--region ${local.region} --bucket ${name} --expected-bucket-owner ${bucket.account}" }

  notification_steps = {
    for bucket, edit in local.notification_edits : bucket => <<-EOT
      # S3 can't merge configurations: this reads the configuration, adds to it and writes it back. Let nothing else write it meanwhile.
      configured=$(aws s3api get-bucket-notification-configuration --output json ${local.bucket_options[bucket]}) &&
      wanted=$(printf '%s' "$configured" | jq --slurp '${edit}') &&
      aws s3api put-bucket-notification-configuration --notification-configuration "$wanted" ${local.bucket_options[bucket]}
    EOT
  }

  forwarding_steps = {
    for bucket, rule in aws_cloudwatch_event_rule.bucket : bucket => <<-EOT
      # As account ${local.account}: allow the owner's events.
      aws events put-permission --region ${local.region} --statement-id ${var.name}-${local.buckets[bucket].account} --action events:PutEvents --principal ${local.buckets[bucket].account}
      # As account ${local.buckets[bucket].account}: forward them, by a role that EventBridge assumes and that may events:PutEvents on the bus named here.
      aws events put-rule --region ${local.region} --name ${rule.name} --event-pattern '${rule.event_pattern}'
      aws events put-targets --region ${local.region} --rule ${rule.name} --targets "Id=ddg-stats,Arn=arn:${local.partition}:events:${local.region}:${local.account}:event-bus/default,RoleArn=$ROLE_ARN"
    EOT
    if local.buckets[bucket].account != local.account
  }

  topic_steps = {
    for name, bucket in local.buckets : name => <<-EOT
      # Before apply, as account ${split(":", bucket.topic_arn)[4]}: allow the subscription.
      aws sns add-permission --region ${local.region} --topic-arn ${bucket.topic_arn} --label ${var.name} --aws-account-id ${local.account} --action-name Subscribe
    EOT
    if bucket.notify == "sns" && try(split(":", bucket.topic_arn)[4], null) != local.account
  }

  submitter_arn = "${local.roles_arn}${local.metric_submit_name}-${local.region}"

  bucket_statements = {
    for name, bucket in local.buckets : name => [
      {
        Sid       = "DatadogStatsReadsFiles"
        Effect    = "Allow"
        Principal = { AWS = local.submitter_arn }
        Action    = ["s3:GetObject", "s3:GetObjectVersion"]
        Resource  = "${bucket.arn}/${bucket.prefix}*"
      },
      {
        Sid       = "DatadogStatsTellsMissingFromForbidden"
        Effect    = "Allow"
        Principal = { AWS = local.submitter_arn }
        Action    = "s3:ListBucket"
        Resource  = bucket.arn
      },
    ]
    if bucket.account != local.account
  }

  key_statements = {
    for name, bucket in local.buckets : name => {
      Sid       = "DatadogStatsReadsFiles"
      Effect    = "Allow"
      Principal = { AWS = local.submitter_arn }
      Action    = "kms:Decrypt"
      Resource  = "*" # a key's policy is for that key
    }
    if try(split(":", bucket.kms_key_arn)[4], local.account) != local.account
  }

  producer_policies = {
    for name, bucket in local.buckets : name => {
      Version = "2012-10-17"
      Statement = concat(
        [{ Sid = "WriteStatsFiles", Effect = "Allow", Action = "s3:PutObject", Resource = "${bucket.arn}/${bucket.prefix}*" }],
        [for key in compact([bucket.kms_key_arn]) : { Sid = "EncryptStatsFiles", Effect = "Allow", Action = "kms:GenerateDataKey", Resource = key }],
      )
    }
  }
}
